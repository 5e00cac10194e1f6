"""Calls through the launch cache, and how many of them were replayed."""

import torch
from gpu_or_interpreter import DEVICE, randn

from sparseq_kernels.reference.quantize_rows import quantize_rows
from sparseq_kernels.triton.int8_linear import CACHE
from sparseq_kernels.triton.runtime.captured_call import CapturedCall
from sparseq_kernels.triton.runtime.gemm_config import GemmConfig

OPS = torch.ops.sparseq
DESCRIPTORS = GemmConfig(64, 128, 64, num_warps=4, num_stages=2, descriptors=True)


def constants(N, K, bias=True, static=False):
    """int8_linear's arguments after x."""
    weight, scale = quantize_rows(randn(N, K, seed=1), 8)
    given_scale = torch.full((1,), 0.02, device=DEVICE) if static else None
    return weight, scale, randn(N, seed=2) if bias else None, given_scale, "none", None, None


def linear(x, given):
    """int8_linear through the cache."""
    return CACHE(OPS.int8_linear, x, *given)


class Counted:
    """How often captured launches were replayed."""

    def __init__(self, monkeypatch):
        self.replays = 0
        replay = CapturedCall.replay

        def counting(capture, inputs):
            result = replay(capture, inputs)
            self.replays += result is not None
            return result

        monkeypatch.setattr(CapturedCall, "replay", counting)
