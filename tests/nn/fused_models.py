"""Tiny packed encoders of each fused family, and the comparison of their two ways."""

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from sparseq.nn import PackedLinear, convert, pack, prunable
from sparseq.nn.fused import FusedEncoder, model
from sparseq.nn.fused.weights import EncoderWeights
from sparseq_kernels import magnitude_mask, use_backend

SHAPE = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 40,
    "max_position_embeddings": 30, "num_labels": 3,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "Bert": {},
    "Roberta": {"type_vocab_size": 2},
    "XLMRoberta": {"type_vocab_size": 2},
    "Camembert": {"type_vocab_size": 2},
    "Electra": {"embedding_size": 16},
    "DistilBert": {},
    "MPNet": {},
}
OLD_NAMES = {
    "hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads",
    "intermediate_size": "hidden_dim", "hidden_act": "activation",
}  # fmt: skip


def plain(family: str = "Bert", head: str = "ForSequenceClassification", seed: int = 0, **changes: Any) -> Any:
    """A model in fp32 whose weights are large enough for each part to matter."""
    import transformers

    torch.manual_seed(seed)
    shape = SHAPE | FAMILIES[family] | changes
    if family == "DistilBert":
        shape = {OLD_NAMES.get(name, name): value for name, value in shape.items()}
    made = getattr(transformers, family + head)(getattr(transformers, f"{family}Config")(**shape)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
            else:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return made


def packed(
    family: str = "Bert",
    head: str = "ForSequenceClassification",
    *,
    sparsity: float = 0.0,
    prepare: Callable[[nn.Module], object] = lambda converted: None,
    config: dict[str, Any] | None = None,
    **settings: Any,
) -> Any:
    """The packed model, on the CPU. settings: of `convert`. prepare: called with the converted model."""
    with use_backend(None):  # A test may have forced one that has no CPU.
        converted = convert(plain(family, head, **(config or {})), **settings)
        if sparsity:
            for layer in prunable(converted).values():
                layer.set_mask(magnitude_mask([layer.weight], sparsity, str(layer.pattern))[0])
        prepare(converted)
        return pack(converted)


def batch(rows: int = 4, length: int = 11, seed: int = 3) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {"input_ids": torch.randint(5, 40, (rows, length), generator=random)}


def right(*lengths: int, of: int = 11) -> Tensor:
    """A mask of sequences of these lengths, padded on the right."""
    return (torch.arange(of) < torch.tensor(lengths).unsqueeze(1)).long()


def left(*lengths: int, of: int = 11) -> Tensor:
    return right(*lengths, of=of).flip(1)


def base(found: Any) -> Any:
    """The fused encoder in a model."""
    (encoder,) = (module for module in found.modules() if isinstance(module, FusedEncoder))
    return encoder


def weights_of(found: Any) -> EncoderWeights:
    """What the fused encoder in a model read from its layers."""
    weights = base(found)._read.each[0].found
    assert isinstance(weights, EncoderWeights)
    return weights


def both(found: Any, **call: Any) -> tuple[Any, Any]:
    """What the model returns (by the fused way, layer by layer). Fails if the fused way is not taken."""
    with torch.inference_mode(), mock.patch.object(model, "encode", wraps=model.encode) as encode:
        fused = found(**call)
        assert encode.call_count == 1, "the fused way was not taken"
    return fused, layered(found, **call)


def layered(found: Any, **call: Any) -> Any:
    with torch.inference_mode(), mock.patch.object(model, "_run", lambda *_: "not in this test"):
        return found(**call)


def is_fused(found: Any, **call: Any) -> bool:
    """Whether a call takes the fused way."""
    with mock.patch.object(model, "encode", wraps=model.encode) as encode:
        found(**call)
    return bool(encode.call_count)


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-4, moved: float = 5e-2) -> None:
    """The median sequence within `tolerance` of the norm of a sequence, and every sequence within `moved`: LayerNorm
    and attention are rounded in the last place as the processor has it, which may move an activation that lies between
    two integers, and one such step is some hundredths of a sequence in models as narrow as these."""
    assert found.shape == expected.shape and found.dtype == expected.dtype
    sequences = len(expected) if expected.dim() else 1
    found, expected = (x.double().reshape(sequences, -1) for x in (found, expected))
    off = (found - expected).norm(dim=1) / expected.norm(dim=1).square().mean().sqrt()
    assert float(off.median()) < tolerance, f"the median sequence is off by {float(off.median()):.2g} of the norm"
    assert float(off.max()) < moved, f"a sequence is off by {float(off.max()):.2g} of the norm"


def linears(found: nn.Module) -> list[PackedLinear]:
    return [module for module in found.modules() if isinstance(module, PackedLinear)]
