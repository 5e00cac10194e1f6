"""The dtypes that files name."""

import torch

from .untrusted import one_of

# The floating dtypes that weights, biases and outputs may have, by the names that files have for them.
FLOAT_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}


def float_dtype(value: object, where: str) -> torch.dtype:
    """The dtype that `value` names, which must be one of FLOAT_DTYPES."""
    return FLOAT_DTYPES[one_of(value, tuple(FLOAT_DTYPES), where)]


def dtype_name(dtype: torch.dtype) -> str:
    """The name that files have for a dtype: "float32" for torch.float32."""
    return str(dtype).removeprefix("torch.")
