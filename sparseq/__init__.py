"""sparseq: a smaller and faster BERT by quantization-aware training, knowledge distillation and magnitude pruning."""

from sparseq_kernels import InputError, backend, set_backend, use_backend

from .checkpoint import load, save
from .nn import calibrate, convert, pack, parameter_groups
from .registration import register_with_transformers
from .size import size_report

__version__ = "0.1.0"
__all__ = [
    "InputError",
    "backend",
    "calibrate",
    "convert",
    "load",
    "pack",
    "parameter_groups",
    "save",
    "set_backend",
    "size_report",
    "use_backend",
]

register_with_transformers()
