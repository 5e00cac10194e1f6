"""Which rows a model answered right, as a short text: so that models can be compared row by row."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def to_text(right: Sequence[bool]) -> str:
    """The bits in hexadecimal digits, the first row in the highest bit of the first digit; zeros fill the last byte."""
    return np.packbits(np.asarray(right, dtype=bool)).tobytes().hex()


def from_text(text: str, rows: int) -> NDArray[Any]:
    """bool [rows]. Raises ValueError if the text is not that of so many rows."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8)).astype(bool)
    if len(bits) // 8 != -(-rows // 8) or bits[rows:].any():
        raise ValueError(f"{len(text)} hexadecimal digits are not the answers of {rows} rows")
    return bits[:rows]
