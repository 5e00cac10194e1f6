"""Tensors that are made in inference mode have no version counter and take no part in autograd: how not to make any."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
T = TypeVar("T")


def outside_inference_mode(function: Callable[P, T]) -> Callable[P, T]:
    """Has the function make the same tensors in inference mode as it does otherwise: with version counters, so that
    their changes can be seen, and shared where they would be. Gradients are recorded only where they were before."""

    @functools.wraps(function)
    def outside(*args: P.args, **kwargs: P.kwargs) -> T:
        recording = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.set_grad_enabled(recording):
            return function(*args, **kwargs)

    return outside


def normal(tensor: Tensor) -> Tensor:
    """The tensor, or a copy if it is an inference tensor.

    Inference tensors have no version counter and take no part in autograd.
    """
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(False):
        return tensor.clone()
