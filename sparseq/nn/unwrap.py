"""A model without the wrappers used in training: torch.compile, data parallelism, averages of weights.

Such a wrapper holds a module, and its attribute name is part of every name below (`_orig_mod.encoder.weight`). Wrappers
can be around the whole model or around parts of it, and nested.
"""

import sys
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from sparseq_kernels import InputError

from .sharded import is_sharded

__all__ = ["plain_modules", "plain_state", "unwrapped"]


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside all wrappers around it, or the model itself if there are none.

    Raises InputError for an FSDP wrapper, whose parameters are shards.
    """
    while (child := _child(model)) is not None:
        model = getattr(model, child)
    return model


def plain_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(name, module) like `named_modules(remove_duplicate=False)`, without the wrappers and their part of the names.

    Raises InputError for an FSDP wrapper.
    """
    for path, module in model.named_modules(remove_duplicate=False):
        if _child(module) is None:
            yield _plain(path, model), module


def plain_state(model: nn.Module) -> dict[str, Any]:
    """`state_dict(keep_vars=True)` under the names of `plain_modules`, without the tensors of the wrappers themselves.

    Raises InputError for an FSDP wrapper, or for a tensor of FSDP of which this process has only a shard.
    """
    names = {path: _plain(path, model) for path, _ in model.named_modules(remove_duplicate=False)}
    own = {path for path, module in model.named_modules(remove_duplicate=False) if _child(module) is not None}
    state = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        # A tensor belongs to the module with the longest path that is a prefix of its name: modules may add own keys.
        path = name
        while path not in names:
            path = path.rpartition(".")[0]
        if path in own:
            continue
        if isinstance(tensor, Tensor) and is_sharded(tensor):
            raise InputError(f"{name} is a shard of a tensor, of FSDP or of tensor parallelism; {_GATHER}")
        rest = name[len(path) :].lstrip(".")
        state[f"{names[path]}.{rest}" if names[path] else rest] = tensor
    return state


_GATHER = (
    "gather the whole state (torch.distributed.checkpoint.state_dict.get_model_state_dict with full_state_dict=True), "
    "load it into the model as it was before wrapping, and save that"
)


def _child(module: nn.Module) -> str | None:
    """The attribute name under which a wrapper holds its module; None if the module is not a wrapper."""
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel | AveragedModel):
        return "module"
    # Checked only if it was imported, which it was if a module is of its class: importing it takes seconds.
    if (compiler := sys.modules.get("torch._dynamo.eval_frame")) and isinstance(module, compiler.OptimizedModule):
        return "_orig_mod"
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp and isinstance(module, fsdp.FullyShardedDataParallel):
        raise InputError(f"the model is wrapped by FSDP, and each process holds a shard of it; {_GATHER}")
    return None


def _plain(path: str, model: nn.Module) -> str:
    """The path without the names of the wrappers."""
    parts = []
    module = model
    for part in path.split(".") if path else ():
        if part != _child(module):
            parts.append(part)
        module = module._modules[part]  # type: ignore[assignment]
    return ".".join(parts)
