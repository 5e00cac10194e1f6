"""sparseq's kernels: quantized and sparse matrix products for training and inference.

Each op is a typed function here, such as `int8_linear`, and an op of torch, `torch.ops.sparseq.int8_linear`. The
package knows nothing of models or training; `sparseq` is built on it.

Importing the package does not import torch. The ops are registered as soon as torch is imported, or now if it was. So a
program that never needs torch, such as one that prints its help, does not wait for it.
"""

import pkgutil
import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .on_import import after_import, forget

if TYPE_CHECKING:
    from .backends import backend, set_backend, use_backend
    from .deprecated import Repeated, call
    from .errors import InputError, InputIndexError, InputTypeError
    from .instruction_sets import instruction_set, set_instruction_set, use_instruction_set
    from .ops.bitmask_int8_linear import bitmask_int8_linear
    from .ops.block_sparse_int8_linear import block_sparse_int8_linear
    from .ops.fake_quant import fake_quant
    from .ops.gelu_quantize_rows import gelu_quantize_rows
    from .ops.int8_embedding import int8_embedding
    from .ops.int8_linear import int8_linear
    from .ops.layer_norm_quantize_rows import layer_norm_quantize_rows
    from .ops.magnitude_mask import magnitude_mask
    from .ops.masked_linear import masked_linear
    from .ops.qat_linear import qat_linear
    from .ops.quantize_rows import quantize_rows
    from .ops.semi_structured_int8_linear import semi_structured_int8_linear
    from .patterns import Pattern

__all__ = [
    "InputError",
    "InputIndexError",
    "InputTypeError",
    "Pattern",
    "Repeated",
    "backend",
    "bitmask_int8_linear",
    "block_sparse_int8_linear",
    "call",
    "fake_quant",
    "gelu_quantize_rows",
    "instruction_set",
    "int8_embedding",
    "int8_linear",
    "layer_norm_quantize_rows",
    "magnitude_mask",
    "masked_linear",
    "qat_linear",
    "quantize_rows",
    "semi_structured_int8_linear",
    "set_backend",
    "set_instruction_set",
    "use_backend",
    "use_instruction_set",
]

_HOMES = {
    "backends": ("backend", "set_backend", "use_backend"),
    "deprecated": ("Repeated", "call"),
    "errors": ("InputError", "InputIndexError", "InputTypeError"),
    "instruction_sets": ("instruction_set", "set_instruction_set", "use_instruction_set"),
    "patterns": ("Pattern",),
} | {
    # An op's function has the name of its file. A new one needs no entry above, but for type checkers.
    f"ops.{found.name}": (found.name,)
    for found in pkgutil.iter_modules([f"{__path__[0]}/ops"])
    if not found.ispkg
}
# The modules that need no torch.
_LIGHT = ("errors", "locks", "on_import", "patterns", "untrusted")
_OTHERS = tuple(found.name for found in pkgutil.iter_modules(__path__) if found.name not in _LIGHT)
_imported = set(_LIGHT)


def _after(module: ModuleType) -> None:
    """After torch, or one of our own modules that need it, was imported: imports the rest.

    Not while another of our modules is being imported, which will get here in its turn.
    """
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
