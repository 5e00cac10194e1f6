"""sparseq's kernels: quantized and sparse matrix products for training and inference, as `torch.ops.sparseq.*`.

Knows nothing of models or training; `sparseq` is built on it.

The ops are there wherever torch is: at once where torch is imported already, and otherwise as soon as it is. So a
program that comes to need no torch, such as one that prints its help, does not wait for it.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .on_import import after_import

if TYPE_CHECKING:
    from .backends import backend, set_backend, use_backend
    from .errors import InputError, InputIndexError, InputTypeError
    from .patterns import Pattern
    from .repeated import Repeated
    from .transforms import call

__all__ = [
    "InputError",
    "InputIndexError",
    "InputTypeError",
    "Pattern",
    "Repeated",
    "backend",
    "call",
    "set_backend",
    "use_backend",
]

_HOMES = {
    "backends": ("backend", "set_backend", "use_backend"),
    "errors": ("InputError", "InputIndexError", "InputTypeError"),
    "patterns": ("Pattern",),
    "repeated": ("Repeated",),
    "transforms": ("call",),
}
# The modules that do without torch.
_LIGHT = ("errors", "on_import", "patterns", "untrusted")


def _with_torch(torch: ModuleType) -> None:
    """Once torch is there. Where one of our own modules is importing it, and so is not done yet, `__getattr__` does
    the same a little later."""
    own = {name.rpartition(".")[2] for name in sys.modules if name.startswith(f"{__name__}.")}
    if own <= set(_LIGHT):
        _fill()


def _fill() -> None:
    """Imports what the package offers, and with it the ops."""
    for module, names in _HOMES.items():
        home = import_module(f".{module}", __name__)
        globals().update({name: getattr(home, name) for name in names})


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if home in _LIGHT and sys.modules.get("torch") is None:
        return getattr(import_module(f".{home}", __name__), name)
    import_module("torch")
    if name not in globals():
        _fill()
    return globals()[name]


after_import("torch", _with_torch)
