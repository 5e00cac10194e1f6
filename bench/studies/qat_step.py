"""The training step of one 384-wide BERT layer: fp32, QAT, and QAT with a 4x4 mask at 60 %.

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

HIDDEN, HEADS, FEED_FORWARD = 384, 12, 1536  # MiniLM
SHAPES = ((32, 24), (32, 48), (8, 128))  # sentences, tokens each
SMALLEST = ((2, 4),)
SPARSITY, PATTERN = 0.6, "4x4"
BASELINE, QAT, MASKED = "fp32", "QAT", f"QAT + {PATTERN} mask {SPARSITY:.0%}"
# One integer that falls on the other side of a tie moves what follows by 1/127 of a value.
TOLERANCE = 1e-2


class Block(nn.Module):
    """One BERT layer, named as in an encoder so that pruning finds its linear layers."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        from transformers import BertConfig
        from transformers.models.bert.modeling_bert import BertLayer

        config = BertConfig(
            hidden_size=HIDDEN,
            num_attention_heads=HEADS,
            intermediate_size=FEED_FORWARD,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
        config._attn_implementation = "sdpa"
        self.layer = nn.ModuleList([BertLayer(config)])

    def forward(self, hidden: Tensor) -> Tensor:
        out = self.layer[0](hidden)
        return out[0] if isinstance(out, tuple) else out


def make_blocks(dropout: float) -> dict[str, Block]:
    """The three variants of one layer, from the same weights."""
    torch.manual_seed(0)
    plain = Block(dropout).train()
    quantized, masked = copy.deepcopy(plain), copy.deepcopy(plain)
    convert(quantized)
    convert(masked, sparsity=SPARSITY, pattern=PATTERN)
    return {BASELINE: plain, QAT: quantized, MASKED: masked}


def forward_backward(block: Block, hidden: Tensor, grad: Tensor) -> Callable[[], None]:
    def run() -> None:
        block.zero_grad(set_to_none=True)
        hidden.grad = None
        block(hidden).backward(grad)

    return run


def with_update(block: Block, hidden: Tensor, grad: Tensor) -> Callable[[], None]:
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


def saved_bytes(block: Block, hidden: Tensor) -> int:
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


def check(name: str, block: Block, hidden: Tensor, grad: Tensor) -> None:
    """Raises WrongResultError unless output and gradients are the reference backend's."""

    def results() -> dict[str, Tensor]:
        torch.manual_seed(0)  # the same dropout
        forward_backward(block, hidden, grad)()
        torch.manual_seed(0)
        with torch.no_grad():
            found = {"output": block(hidden)}
        assert hidden.grad is not None
        found["input gradient"] = hidden.grad.clone()
        return found | {f"gradient of {n}": p.grad.clone() for n, p in block.named_parameters() if p.grad is not None}

    found = results()
    with use_backend("reference"):
        expected = results()
    # A key's bias shifts all of a row's attention scores alike: its gradient is rounding and nothing else.
    compared = [what for what in expected if not what.endswith("attention.self.key.bias")]
    for what in compared:
        require_close(f"{name}, {what}", found[what], expected[what], TOLERANCE)


def measure(shape: tuple[int, int], rounds: int, dropout: float) -> list[dict[str, Any]]:
    blocks = make_blocks(dropout)
    hidden = torch.randn(*shape, HIDDEN, requires_grad=True)
    grad = torch.randn(*shape, HIDDEN)
    for name, block in blocks.items():
        check(name, block, hidden, grad)
    saved = {name: saved_bytes(block, hidden) for name, block in blocks.items()}
    rows = []
    for step, make in (("forward + backward", forward_backward), ("with AdamW", with_update)):
        candidates = {name: make(block, hidden, grad) for name, block in blocks.items()}
        times = alternate(candidates, rounds, warmup=2)
        case = {"batch": shape[0], "tokens": shape[1], "step": step}
        pairs = [(name, BASELINE) for name in blocks if name != BASELINE]
        rows.append({"case": case, **times.as_dict(pairs), "saved_bytes": saved})
        line = ", ".join(f"{name} {1e3 * times.time(name).median:.1f} ms" for name in blocks)
        ratios = ", ".join(f"{name} / {BASELINE} {times.ratio(name, BASELINE)}" for name, _ in pairs)
        print(f"{shape[0]} x {shape[1]}, {step}: {line}; {ratios}", flush=True)
    kept = ", ".join(f"{name} {count / 1e6:.2f} MB" for name, count in saved.items())
    print(f"{shape[0]} x {shape[1]}, kept for the backward: {kept}", flush=True)
    return rows


def _own(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dropout", type=float, default=0.0, help="costs all alike: 0 is hardest on QAT")


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("The training step of one 384-wide BERT layer: fp32, QAT, QAT + mask.", 31, argv, _own)
    shapes = SMALLEST if given.smallest else SHAPES
    rows = [row for shape in shapes for row in measure(shape, given.rounds, given.dropout)]
    settings = {"hidden": HIDDEN, "heads": HEADS, "feed_forward": FEED_FORWARD, "dropout": given.dropout}
    finish("qat_step", rows, settings, given)
    return 0


if __name__ == "__main__":
    run_program(main)
