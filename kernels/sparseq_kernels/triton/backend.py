"""The backend "triton": kernels for GPUs, and for CPU tensors in Triton's interpreter."""

from ..registry import Backend
from .runtime.availability import interpreted, why_not


def _why_not(device: str) -> str | None:
    if device == "cpu" and not interpreted():
        return "it runs on GPU tensors, and on cpu ones only in Triton's interpreter (TRITON_INTERPRET=1)"
    return why_not()


BACKENDS = (Backend("triton", __package__, _why_not, ("cuda",), runs_fp64=False),)
