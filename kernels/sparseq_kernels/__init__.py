"""sparseq's kernels: quantized and sparse matrix products for training and inference, as `torch.ops.sparseq.*`.

Knows nothing of models or training; `sparseq` is built on it.

The ops are there wherever torch is: at once where torch is imported already, and otherwise as soon as it is. So a
program that comes to need no torch, such as one that prints its help, does not wait for it.
"""

import pkgutil
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .on_import import after_import, forget

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
_OTHERS = tuple(found.name for found in pkgutil.iter_modules(__path__) if found.name not in _LIGHT)
_imported = set(_LIGHT)


def _after(module: ModuleType) -> None:
    """After torch, or one of our own modules that need it, was imported: imports the rest, unless another of ours is
    still being imported, which has its turn then."""
    if module.__name__ != "torch":
        _imported.add(module.__name__.rpartition(".")[2])
    begun = {name.split(".")[1] for name in sys.modules if name.startswith(f"{__name__}.")}
    if begun <= _imported:
        _fill()


def _fill() -> None:
    """Imports what the package offers, and with it the ops."""
    for name in ("torch", *(f"{__name__}.{other}" for other in _OTHERS)):
        forget(name, _after)
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


after_import("torch", _after)
if "backend" not in globals():
    for _name in _OTHERS:
        after_import(f"{__name__}.{_name}", _after)
