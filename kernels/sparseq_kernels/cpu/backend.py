"""The CPU's two backends: "native", with C code of this package, and "cpu", with torch's operators alone."""

from ..registry import Backend
from .native import why_not as why_not_native

_ELSEWHERE = "it runs on cpu tensors only"


def _why_not_native(device: str) -> str | None:
    return _ELSEWHERE if device != "cpu" else why_not_native()


def _why_not_cpu(device: str) -> str | None:
    return _ELSEWHERE if device != "cpu" else None


BACKENDS = (
    Backend("cpu", __package__, _why_not_cpu),
    Backend("native", __package__, _why_not_native, ("cpu",), ("cpu", "torch's operators"), based_on="cpu"),
)
