"""The CPU's two backends: "native", with C code of this package, and "cpu", with torch's operators alone."""

from ..instruction_sets import instruction_set, passed_over
from ..registry import Backend
from .native import loaded, threads
from .native import why_not as why_not_native

_ELSEWHERE = "it runs on cpu tensors only"


def _why_not_native(device: str) -> str | None:
    return _ELSEWHERE if device != "cpu" else why_not_native()


def _why_not_cpu(device: str) -> str | None:
    return _ELSEWHERE if device != "cpu" else None


def _native_details() -> str:
    name, count = instruction_set(), threads()
    _, prebuilt = loaded(name)
    origin = "prebuilt" if prebuilt else "built here"
    without = "".join(f", without {other}: {reason}" for other, reason in passed_over().items())
    return f"{name}, {count} thread{'s' * (count > 1)}, {origin}{without}"


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
