"""No speed without correctness: every benchmark compares what it is about to time with the reference, in that run."""

import torch
from torch import Tensor


class WrongResultError(AssertionError):
    """What was to be timed does not compute what the reference does."""


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference, over that of `expected`."""
    scale = expected.double().square().mean().sqrt().clamp_min(1e-30)
    return float((found.double() - expected.double()).square().mean().sqrt() / scale)


def require_equal(name: str, found: Tensor, expected: Tensor) -> None:
    """Raises WrongResultError unless the tensors are equal to the bit."""
    if found.dtype != expected.dtype or not torch.equal(found, expected):
        raise WrongResultError(f"{name}: not equal to the reference; nothing is reported of it")


def require_close(name: str, found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Raises WrongResultError unless the relative error is at most `tolerance` (NaN never is)."""
    if found.shape != expected.shape or not (error := relative_error(found, expected)) <= tolerance:
        what = "another shape" if found.shape != expected.shape else f"a relative error of {error:.2g}"
        raise WrongResultError(f"{name}: {what} beside the reference, above {tolerance:g}; nothing is reported of it")
