"""sparseq's kernels: quantized and sparse matrix products for training and inference, as `torch.ops.sparseq.*`.

Knows nothing of models or training; `sparseq` is built on it.
"""

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
