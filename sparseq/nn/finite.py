"""Checks for NaN and Inf, which name the layer that they come from."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparseq_kernels import InputError
from sparseq_kernels.torch_internals import has_values

from .layers import named_layers


def checked_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of everything that must be finite: every parameter, and the buffers of sparseq's own layers.

    Buffers of other modules are not checked: a causal mask has -Inf by intention.
    """
    yield from model.named_parameters()
    for name, layer in named_layers(model):
        yield from layer.named_buffers(prefix=name, recurse=False)


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor has neither NaN nor Inf; True if it has no floating-point values (yet)."""
    if nn.parameter.is_lazy(tensor) or not has_values(tensor) or not tensor.is_floating_point():
        return True
    # torch has no isfinite for the 8-bit floats.
    return bool(torch.isfinite(tensor if tensor.element_size() > 1 else tensor.float()).all())


def check_finite(model: nn.Module) -> None:
    """Raises InputError, naming the tensor, if a parameter or a buffer of a sparseq layer has NaN or Inf."""
    for name, tensor in checked_tensors(model):
        if not is_finite(tensor):
            raise InputError(f"{name!r} holds {_what(tensor)}: the weights must be finite numbers")


def find_nonfinite(model: nn.Module, batch: Mapping[str, Any]) -> str | None:
    """The name of the first layer, in execution order, whose output is not finite when model(**batch) runs."""
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            values = output if isinstance(output, list | tuple) else [output]
            bad = [v for v in values if isinstance(v, Tensor) and not is_finite(v)]
            if bad:
                found.append(f"{name!r} ({_what(bad[0])} in its output)")

        return hook

    hooks = [m.register_forward_hook(watch(n)) for n, m in model.named_modules() if not list(m.children())]
    try:
        with torch.no_grad():
            model(**batch)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _what(tensor: Tensor) -> str:
    return "NaN" if torch.isnan(tensor).any() else "Inf"
