"""The CPU's two backends: "native", with C code of this package, and "cpu", with torch's operators alone."""

from ..instruction_sets import instruction_set
from ..registry import Backend
from .native import threads
from .native import why_not as why_not_native

_ELSEWHERE = "it runs on cpu tensors only"


def _why_not_native(device: str) -> str | None:
    return _ELSEWHERE if device != "cpu" else why_not_native()


def _why_not_cpu(device: str) -> str | None:
    return _ELSEWHERE if device != "cpu" else None


def _native_details() -> str:
    count = threads()
    return f"{instruction_set()}, {count} thread{'s' * (count > 1)}"


BACKENDS = (
    Backend("cpu", __package__, _why_not_cpu),
    Backend(
        "native",
        __package__,
        _why_not_native,
        ("cpu",),
        ("cpu", "torch's operators"),
        based_on="cpu",
        details=_native_details,
    ),
)
