"""sparseq: a smaller and faster BERT by quantization-aware training, knowledge distillation and magnitude pruning."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .registration import register_with_transformers
from .version import __version__ as __version__

if TYPE_CHECKING:
    from sparseq_kernels import (
        InputError,
        backend,
        instruction_set,
        set_backend,
        set_instruction_set,
        use_backend,
        use_instruction_set,
    )

    from .checkpoint import load, save
    from .nn import calibrate, convert, pack, parameter_groups
    from .onnx import export_onnx
    from .size import size_report

__all__ = [
    "InputError",
    "backend",
    "calibrate",
    "convert",
    "export_onnx",
    "instruction_set",
    "load",
    "pack",
    "parameter_groups",
    "save",
    "set_backend",
    "set_instruction_set",
    "size_report",
    "use_backend",
    "use_instruction_set",
]

# Imported on first use, because they import torch, which takes a second; `sparseq --help` does not need it.
_HOMES = {
    "sparseq_kernels": (
        "InputError",
        "backend",
        "instruction_set",
        "set_backend",
        "set_instruction_set",
        "use_backend",
        "use_instruction_set",
    ),
    "sparseq.checkpoint": ("load", "save"),
    "sparseq.nn": ("calibrate", "convert", "pack", "parameter_groups"),
    "sparseq.onnx": ("export_onnx",),
    "sparseq.size": ("size_report",),
}
_MODULES = ("checkpoint", "errors", "nn", "onnx", "size")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"sparseq.{name}")
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})


register_with_transformers()
