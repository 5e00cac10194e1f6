"""Checks of the inputs of layers: tensors on the right device, and proxies of torch.fx."""

from typing import Any

from torch import Tensor, fx, nn

from sparseq_kernels import InputError
from sparseq_kernels.errors import InputTypeError


def recorded(layer: nn.Module, input: Any) -> Any:
    """Records the call of the layer in torch.fx, as one node like that of `nn.Linear`, if `input` is a proxy.

    Raises InputTypeError for any other input that is not a tensor, and InputError for a layer whose call cannot be one
    node.
    """
    if not isinstance(input, fx.Proxy):
        raise InputTypeError(f"a {type(layer).__name__}'s input must be a tensor, not a {type(input).__name__}")
    name = input.tracer.path_of_module(layer)  # type: ignore[attr-defined]
    if not name:
        raise InputError("torch.fx records a layer of sparseq as one call: trace the model that holds the layer")
    if layer._forward_hooks or layer._forward_pre_hooks:
        raise InputError(
            f"layer {name!r} has forward hooks, which torch.fx would record twice: remove them, or trace with a "
            "torch.fx.Tracer whose is_leaf_module is true of this layer"
        )
    return input.tracer.create_proxy("call_module", name, (input,), {})


def check_floating(input: Tensor) -> None:
    """Raises InputError for a linear layer's input of integers, bools or complex numbers."""
    if not input.is_floating_point():
        raise InputError(f"a linear layer's input must hold real floating-point numbers, not {input.dtype}")


def check_device(layer: nn.Module, input: Tensor, rows: Tensor) -> None:
    """Raises InputError for indices on another device than the table that they index.

    On the meta device torch's look-up returns uninitialized numbers for such indices.
    """
    if input.device != rows.device:
        raise InputError(
            f"a {type(layer).__name__} got indices on {input.device} and holds its rows on {rows.device}: move them "
            "to one device"
        )
