"""Models to save, and what must be the same after loading."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sparseq.checkpoint import load
from sparseq.errors import InputError
from sparseq.nn import convert, pack

IDS = torch.tensor([[2, 7, 9, 3, 0], [2, 11, 3, 0, 0]])


def transformer(family: str, head: str, **changes: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    names = {"hidden_size": "dim", "intermediate_size": "hidden_dim"} if family == "DistilBert" else {}
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    shape = {names.get(key, key): value for key, value in shape.items()}
    config = getattr(transformers, f"{family}Config")(**{"vocab_size": 60, "pad_token_id": 0, **shape, **changes})
    return getattr(transformers, f"{family}For{head}")(config).eval()


def classifier(**changes: Any) -> Any:
    return transformer("Bert", "SequenceClassification", **changes)


def masked_lm() -> Any:
    return transformer("Bert", "MaskedLM")


def assert_same(loaded: nn.Module, saved: nn.Module) -> None:
    """Every parameter and buffer, those that are not stored too, equal in name, dtype and bits."""
    mine = dict([*loaded.named_parameters(remove_duplicate=False), *loaded.named_buffers(remove_duplicate=False)])
    theirs = dict([*saved.named_parameters(remove_duplicate=False), *saved.named_buffers(remove_duplicate=False)])
    assert set(mine) == set(theirs)
    for name, tensor in mine.items():
        assert type(tensor) is type(theirs[name]) and tensor.dtype == theirs[name].dtype, name
        assert not tensor.is_meta and torch.equal(tensor, theirs[name]), name
        assert tensor.requires_grad == theirs[name].requires_grad, name


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


VERSIONS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "plain": lambda model: model,
    "bf16": lambda model: model.bfloat16(),
    "training": lambda model: convert(model, sparsity=0.5, scale="lsq"),
    "training, 4x4": lambda model: convert(model, sparsity=0.5, pattern="4x4"),
    "bf16 training": lambda model: convert(model.bfloat16(), sparsity=0.5),
    "packed": lambda model: pack(convert(model)),
    "packed 60 %": lambda model: pack(convert(model, sparsity=0.6)),
    "packed 4x4": lambda model: pack(convert(model, sparsity=0.6, pattern="4x4")),
    "packed int4 2:4": lambda model: pack(convert(model, bits=4, sparsity=0.5, pattern="2:4", prune_embeddings=True)),
    "packed int16": lambda model: pack(convert(model, bits=16)),
    "packed bf16": lambda model: pack(convert(model.bfloat16(), sparsity=0.6)),
    "pruned only, packed": lambda model: pack(convert(model, bits=None, sparsity=0.6)),
}


def sentence(folder: Path, **arguments: Any) -> str:
    with pytest.raises(InputError) as caught:
        load(folder, **arguments)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400
    return message
