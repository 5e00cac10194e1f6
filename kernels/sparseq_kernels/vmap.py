"""`torch.vmap` of the ops: a loop over the batch. Batching is not worthwhile for any of them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def one_by_one(run: Callable[..., Any]) -> Callable[..., Any]:
    """A vmap rule that runs `run` on each element of the batch and stacks the results."""

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        results = [run(*_element(args, in_dims, i)) for i in range(info.batch_size)]
        if isinstance(results[0], Tensor):
            return torch.stack(results), 0
        columns = [torch.stack(column) for column in zip(*results, strict=True)]
        return type(results[0])(columns), type(results[0])(0 for _ in columns)

    return rule


def _element(args: Any, in_dims: Any, index: int) -> list[Any]:
    picked: list[Any] = []
    for arg, dim in zip(args, in_dims, strict=True):
        if isinstance(dim, list | tuple):
            picked.append(_element(arg, dim, index))
        else:
            picked.append(arg if dim is None else arg.select(dim, index))
    return picked
