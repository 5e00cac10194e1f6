"""Numbers that are none: NaN and Inf, and the layer that they come from."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparseq_kernels import InputError


def check_finite(model: nn.Module) -> None:
    """Raises InputError, naming the tensor, if any floating-point parameter or buffer holds NaN or Inf."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point() and not tensor.is_meta and not torch.isfinite(tensor).all():
            raise InputError(f"{name!r} holds {_what(tensor)}: the weights must be finite numbers")


def find_nonfinite(model: nn.Module, batch: Mapping[str, Any]) -> str | None:
    """The name of the first layer, in the order of execution, whose output is not finite when model(**batch) runs."""
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            values = output if isinstance(output, list | tuple) else [output]
            bad = [v for v in values if isinstance(v, Tensor) and v.is_floating_point() and not torch.isfinite(v).all()]
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
