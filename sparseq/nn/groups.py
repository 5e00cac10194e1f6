"""Groups of a model's parameters for an optimizer: with weight decay, without, and learned quantization scales."""

from collections.abc import Collection
from typing import Any

from torch import nn

from sparseq_kernels import InputError

from .linear import QuantSparseLinear

# A factor of the weights' learning rate. Adam's step does not depend on the size of the gradient, so LSQ's gradient
# scaling has no effect, and at the weights' rate a scale of 1e-3 would move by as much as a weight of 1e-1.
SCALE_LR = 0.01


def scale_names(model: nn.Module) -> list[str]:
    """The names of the model's learned scales (`step_size`, `input_scale`) among its parameters."""
    owners = (name for name, layer in model.named_modules() if isinstance(layer, QuantSparseLinear))
    own = {f"{name}.{scale}".lstrip(".") for name in owners for scale in ("step_size", "input_scale")}
    return [name for name, _ in model.named_parameters() if name in own]


def check_scale_groups(model: nn.Module, optimizer: Any) -> None:
    """Raises InputError if the optimizer decays a learned scale, which only a group of its own can prevent."""
    scales = set(scale_names(model))
    names = {id(parameter): name for name, parameter in model.named_parameters() if name in scales}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) in names and group.get("weight_decay", 0.0):
                raise InputError(
                    f"the optimizer decays the learned scale {names[id(parameter)]!r}: make it from "
                    "sparseq.parameter_groups(model, lr), or use sparseq.hf.ParameterGroupsMixin with a Trainer"
                )


def separate_scales(model: nn.Module, optimizer: Any, scale_lr: float = SCALE_LR) -> None:
    """Moves the model's learned scales, in a new optimizer, to a group without decay at `scale_lr` times the rate."""
    scales = set(scale_names(model))
    ids = {id(parameter) for name, parameter in model.named_parameters() if name in scales}
    for group in list(optimizer.param_groups):
        moved = [parameter for parameter in group["params"] if id(parameter) in ids]
        if moved:
            group["params"] = [parameter for parameter in group["params"] if id(parameter) not in ids]
            own = {name: value for name, value in group.items() if name != "params"}
            optimizer.add_param_group({**own, "params": moved, "lr": scale_lr * group["lr"], "weight_decay": 0.0})


def parameter_groups(
    model: nn.Module,
    lr: float,
    weight_decay: float = 0.0,
    *,
    scale_lr: float = SCALE_LR,
    decayed: Collection[str] | None = None,
) -> list[dict[str, Any]]:
    """Groups of the parameters that require gradients, for any torch optimizer; empty groups are left out.

    Weights are decayed; vectors (biases, norms) are not. Learned quantization scales (`scale="lsq"`) are not decayed
    either, and have the learning rate `scale_lr * lr`: Adam moves each parameter by about its learning rate, whatever
    the parameter's size, and scales are about a hundred times smaller than weights.

        optimizer = torch.optim.AdamW(sparseq.parameter_groups(model, lr=1e-4, weight_decay=0.01))

    decayed: the names of the parameters to decay; None decays those with two dimensions or more. Raises InputError for
    learning rates and decays below 0.
    """
    for name, value in (("lr", lr), ("weight_decay", weight_decay), ("scale_lr", scale_lr)):
        if not value >= 0:
            raise InputError(f"{name} is {value}: it must not be below 0")
    scales = set(scale_names(model))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if decayed is None:
        decayed = {name for name, parameter in trained.items() if parameter.dim() > 1}
    groups: tuple[dict[str, Any], ...] = (
        {"params": [], "lr": lr, "weight_decay": weight_decay},
        {"params": [], "lr": lr, "weight_decay": 0.0},
        {"params": [], "lr": scale_lr * lr, "weight_decay": 0.0},
    )
    for name, parameter in trained.items():
        groups[2 if name in scales else 0 if name in decayed else 1]["params"].append(parameter)
    return [group for group in groups if group["params"]]
