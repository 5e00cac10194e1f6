"""How far floats may be apart that are the same but for the order in which terms were added up."""

import torch
from torch import Tensor


def assert_within_rounding(found: Tensor, expected: Tensor, depth: int) -> None:
    """Each of two results is off by at most depth * eps of the magnitudes that were summed (Higham 2002, 3.1); they are
    taken to be as large as the largest result, and `depth` counts the terms of the longest sum on the way."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    size = float(expected.detach().abs().max()) if expected.numel() else 0.0
    tolerance = 2 * depth * torch.finfo(found.dtype).eps
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * size)


def assert_same_logits(found: Tensor, expected: Tensor) -> None:
    """Of two models with the same weights, of widths up to 256 and a few layers, in their own memory each."""
    assert_within_rounding(found, expected, 256)
