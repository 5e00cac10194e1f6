"""The inputs and outputs of an exported model: their names, their dynamic axes, and tensors to trace with."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparseq.errors import InputError
from sparseq_kernels.errors import InputTypeError

# Of a transformers model that reads tokens, in the order of the file's inputs.
TOKEN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
BATCH, LENGTH = "batch", "length"
_ROWS, _TOKENS = 2, 8


def example_inputs(model: nn.Module) -> dict[str, Tensor]:
    """Inputs to trace a transformers model with, int64 [2, 8], by name: those of `TOKEN_INPUTS` that it reads.

    Raises InputError for a model that does not read tokens.
    """
    taken = inspect.signature(model.forward).parameters
    config: Any = getattr(model, "config", None)
    if "input_ids" not in taken or config is None or not hasattr(config, "vocab_size"):
        raise InputError(f"a {type(model).__name__} is no transformers model that reads input_ids: give example inputs")
    made = {
        # Not padding, which some models compute positions from.
        "input_ids": torch.full((_ROWS, _TOKENS), (getattr(config, "pad_token_id", None) or 0) + 1),
        "attention_mask": torch.ones(_ROWS, _TOKENS, dtype=torch.int64),
    }
    # With one type of token (RoBERTa's) tokenizers give no input for it.
    if getattr(config, "type_vocab_size", 0) > 1:
        made["token_type_ids"] = torch.zeros(_ROWS, _TOKENS, dtype=torch.int64)
    return {name: made[name] for name in TOKEN_INPUTS if name in made and name in taken}


def check_inputs(inputs: Mapping[str, Tensor]) -> None:
    """Raises InputError for example inputs that cannot be traced with."""
    if not inputs:
        raise InputError("there are no example inputs: give one tensor for each argument of forward, by name")
    for name, tensor in inputs.items():
        if not isinstance(tensor, Tensor):
            raise InputTypeError(f"the example input {name!r} is a {type(tensor).__name__}: give a tensor")
        for axis, called in dynamic_axes(tensor).items():
            if tensor.dim() <= axis or tensor.shape[axis] < 2:
                raise InputError(
                    f"the example input {name!r} has the shape {tuple(tensor.shape)}: its {called} (axis {axis}) must "
                    "be 2 at least, for it may have any size in the file"
                )


def dynamic_axes(tensor: Tensor) -> dict[int, str]:
    """The axes that may have any size: the batch, and the length of integers (tokens)."""
    return {0: BATCH} if tensor.is_floating_point() or tensor.dim() < 2 else {0: BATCH, 1: LENGTH}


class Named(nn.Module):
    """A model as exporters take it: tensors in the order of `names` in, a tuple of tensors out."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        found = self.model(**dict(zip(self.names, tensors, strict=True)))
        return tuple(outputs_of(found).values())


def outputs_of(result: Any) -> dict[str, Tensor]:
    """The tensors in what a model returns, by name: those of a mapping by its keys, others as output, or output_0 and
    so on. Raises InputError if there are none."""
    if isinstance(result, Tensor):
        return {"output": result}
    if isinstance(result, Mapping):
        found = {name: value for name, value in result.items() if isinstance(value, Tensor)}
    else:
        parts = result if isinstance(result, tuple | list) else ()
        found = {f"output_{number}": value for number, value in enumerate(parts) if isinstance(value, Tensor)}
    if not found:
        raise InputError(f"the model returns a {type(result).__name__}, which has no tensors to export")
    return found
