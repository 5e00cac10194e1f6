"""`torch.vmap` of the ops: a loop over the batch. Batching is not worthwhile for any of them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def one_by_one(run: Callable[..., Any]) -> Callable[..., Any]:
    """A vmap rule that runs `run` on each element of the batch and stacks the results."""

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        if info.batch_size == 0:
            return _empty(run(*_element(args, in_dims, None)))
        results = [run(*_element(args, in_dims, i)) for i in range(info.batch_size)]
        if isinstance(results[0], Tensor):
            return torch.stack(results), 0
        columns = [torch.stack(column) for column in zip(*results, strict=True)]
        return type(results[0])(columns), type(results[0])(0 for _ in columns)

    return rule


def _empty(results: Any) -> tuple[Any, Any]:
    """No results like these, and the batch's dimension."""
    if isinstance(results, Tensor):
        return results.new_empty((0, *results.shape)), 0
    return type(results)(result.new_empty((0, *result.shape)) for result in results), type(results)(0 for _ in results)


def _element(args: Any, in_dims: Any, index: int | None) -> list[Any]:
    """The arguments for one element of the batch; for an index of None zeros of the same shape."""
    picked: list[Any] = []
    for arg, dim in zip(args, in_dims, strict=True):
        if isinstance(dim, list | tuple):
            picked.append(_element(arg, dim, index))
        else:
            picked.append(arg if dim is None else _select(arg, dim, index))
    return picked


def _select(arg: Tensor, dim: int, index: int | None) -> Tensor:
    if index is not None:
        return arg.select(dim, index)
    return arg.new_zeros([size for place, size in enumerate(arg.shape) if place != dim])
