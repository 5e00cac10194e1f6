"""The training step of one 384-wide BERT layer, and of MiniLM-L6: fp32, QAT, and QAT with a 4x4 mask at 60 %.

    python -m bench.studies.qat_step [--threads 2] [--smallest]

Times forward + backward, and the same with AdamW's update, alternately in one process; and counts the bytes that the
forward leaves for the backward.
"""

import argparse
import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.check import require_close
from bench.common import alternate, arguments, finish
from bench.program import run_program
from sparseq import convert, use_backend
from sparseq.nn import MaskedWeight, named_layers

HIDDEN, HEADS, FEED_FORWARD, LAYERS = 384, 12, 1536, 6  # MiniLM-L6
SHAPES = ((32, 24), (32, 48), (8, 128))  # sentences, tokens each, of one layer
MODEL_SHAPES = ((32, 64),)  # of the whole model
SMALLEST = ((2, 4),)
CHECKED = 2  # sentences of a whole model that are compared with the reference
SPARSITY, PATTERN = 0.6, "4x4"
BASELINE, QAT, MASKED = "fp32", "QAT", f"QAT + {PATTERN} mask {SPARSITY:.0%}"
# One integer that falls on the other side of a tie moves what follows by 1/127 of a value.
TOLERANCE = 1e-2


def _config(dropout: float) -> Any:
    from transformers import BertConfig

    config = BertConfig(
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=FEED_FORWARD,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    config._attn_implementation = "sdpa"
    return config


class Block(nn.Module):
    """One BERT layer, named as in an encoder so that pruning finds its linear layers."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        from transformers.models.bert.modeling_bert import BertLayer

        self.layer = nn.ModuleList([BertLayer(_config(dropout))])

    def forward(self, hidden: Tensor) -> Tensor:
        # As in an encoder, whose layers get results: of a leaf, query, key and value share no quantization.
        out = self.layer[0](hidden.view_as(hidden))
        return out[0] if isinstance(out, tuple) else out

    def inputs(self, batch: int, tokens: int) -> Tensor:
        return torch.randn(batch, tokens, HIDDEN, requires_grad=True)


class Model(nn.Module):
    """The whole encoder with its embeddings, from token ids to hidden states."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        from transformers import BertModel

        self.bert = BertModel(_config(dropout), add_pooling_layer=False)

    def forward(self, ids: Tensor) -> Tensor:
        hidden: Tensor = self.bert(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        return hidden

    def inputs(self, batch: int, tokens: int) -> Tensor:
        return torch.randint(0, self.bert.config.vocab_size, (batch, tokens))


def make_blocks(dropout: float, kind: type[Block] | type[Model] = Block) -> dict[str, Any]:
    """The three variants of one layer, or of a model, from the same weights."""
    torch.manual_seed(0)
    plain = kind(dropout).train()
    quantized, masked = copy.deepcopy(plain), copy.deepcopy(plain)
    convert(quantized)
    convert(masked, sparsity=SPARSITY, pattern=PATTERN)
    return {BASELINE: plain, QAT: quantized, MASKED: masked}


def forward_backward(block: nn.Module, hidden: Tensor, grad: Tensor) -> Callable[[], None]:
    def run() -> None:
        block.zero_grad(set_to_none=True)
        hidden.grad = None
        block(hidden).backward(grad)

    return run


def with_update(block: nn.Module, hidden: Tensor, grad: Tensor) -> Callable[[], None]:
    """The step as the trainer takes it: fused AdamW, and masked weights held at zero."""
    optimizer = torch.optim.AdamW(block.parameters(), lr=1e-5, fused=True)
    layers = [layer for _, layer in named_layers(block) if isinstance(layer, MaskedWeight)]
    step = forward_backward(block, hidden, grad)

    def run() -> None:
        step()
        optimizer.step()
        for layer in layers:
            layer.apply_mask()

    return run


def saved_bytes(block: nn.Module, hidden: Tensor) -> int:
    """Bytes that one forward leaves for its backward, parameters and buffers not counted, shared storage once.

    All of it lives until the backward starts, so this is the peak.
    """
    own = {t.untyped_storage().data_ptr() for t in [*block.parameters(), *block.buffers()]}
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = block(hidden)  # kept until here, or its storages could be handed out twice
    del out
    return sum(saved.values())


def check(name: str, block: nn.Module, hidden: Tensor, grad: Tensor) -> None:
    """Raises WrongResultError unless output and gradients are the reference backend's."""

    def results() -> dict[str, Tensor]:
        torch.manual_seed(0)  # the same dropout
        forward_backward(block, hidden, grad)()
        torch.manual_seed(0)
        with torch.no_grad():
            found = {"output": block(hidden)}
        if hidden.grad is not None:  # Token ids have none.
            found["input gradient"] = hidden.grad.clone()
        return found | {f"gradient of {n}": p.grad.clone() for n, p in block.named_parameters() if p.grad is not None}

    found = results()
    with use_backend("reference"):
        expected = results()
    # A key's bias shifts all of a row's attention scores alike: its gradient is rounding and nothing else.
    compared = [what for what in expected if not what.endswith("attention.self.key.bias")]
    for what in compared:
        require_close(f"{name}, {what}", found[what], expected[what], TOLERANCE)


def measure(
    shape: tuple[int, int], rounds: int, dropout: float, kind: type[Block] | type[Model] = Block
) -> list[dict[str, Any]]:
    blocks = make_blocks(dropout, kind)
    hidden = blocks[BASELINE].inputs(*shape)
    grad = torch.randn(*shape, HIDDEN)
    checked = shape[0] if kind is Block else CHECKED
    for name, block in blocks.items():
        check(name, block, hidden[:checked].detach().requires_grad_(hidden.requires_grad), grad[:checked])
    whole = {"model": f"MiniLM-L{LAYERS}"} if kind is Model else {}
    title = " ".join([*whole.values(), f"{shape[0]} x {shape[1]}"])
    saved = {name: saved_bytes(block, hidden) for name, block in blocks.items()}
    rows = []
    for step, make in (("forward + backward", forward_backward), ("with AdamW", with_update)):
        candidates = {name: make(block, hidden, grad) for name, block in blocks.items()}
        times = alternate(candidates, rounds, warmup=2)
        case = {**whole, "batch": shape[0], "tokens": shape[1], "step": step}
        pairs = [(name, BASELINE) for name in blocks if name != BASELINE]
        rows.append({"case": case, **times.as_dict(pairs), "saved_bytes": saved})
        line = ", ".join(f"{name} {1e3 * times.time(name).median:.1f} ms" for name in blocks)
        ratios = ", ".join(f"{name} / {BASELINE} {times.ratio(name, BASELINE)}" for name, _ in pairs)
        print(f"{title}, {step}: {line}; {ratios}", flush=True)
    kept = ", ".join(f"{name} {count / 1e6:.2f} MB" for name, count in saved.items())
    print(f"{title}, kept for the backward: {kept}", flush=True)
    return rows


def _own(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dropout", type=float, default=0.0, help="costs all alike: 0 is hardest on QAT")


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("The training step of a BERT layer and of MiniLM-L6: fp32, QAT, QAT + mask.", 31, argv, _own)
    kinds: tuple[tuple[type[Block] | type[Model], Any], ...] = ((Block, SHAPES), (Model, MODEL_SHAPES))
    rows = [
        row
        for kind, shapes in kinds
        for shape in (SMALLEST if given.smallest else shapes)
        for row in measure(shape, given.rounds, given.dropout, kind)
    ]
    settings = {
        "hidden": HIDDEN,
        "heads": HEADS,
        "feed_forward": FEED_FORWARD,
        "layers": LAYERS,
        "dropout": given.dropout,
    }
    finish("qat_step", rows, settings, given)
    return 0


if __name__ == "__main__":
    run_program(main)
