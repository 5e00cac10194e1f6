"""The header of a safetensors file: read completely and checked against the file's size before any tensor is read.

The format: 8 bytes with the length N of the header, little endian; N bytes of JSON, an object of tensor name ->
{"dtype", "shape", "data_offsets"} and "__metadata__", an object of texts; then the tensors' bytes without gaps.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from sparseq.errors import InputError
from sparseq.reading import strict_json
from sparseq_kernels.untrusted import integer, one_of, quoted

__all__ = ["DTYPES", "LARGEST_HEADER", "Entry", "Header", "check_name", "encode", "parse_header", "read_header"]

METADATA = "__metadata__"
# Parsed, JSON takes up to about twenty times its length in memory. BERT-base has 40 KB, a model of 10,000 tensors 3 MB.
LARGEST_HEADER = 16 * 2**20
_MOST_DIMENSIONS = 64
LONGEST_NAME = 1024

# The dtypes that `save` writes, by their names in the file. safetensors orders tensors by dtype, then by name: in the
# order of this table.
DTYPES: dict[str, torch.dtype] = {
    "I64": torch.int64, "U64": torch.uint64, "F64": torch.float64, "C64": torch.complex64, "F32": torch.float32,
    "U32": torch.uint32, "I32": torch.int32, "BF16": torch.bfloat16, "F16": torch.float16, "U16": torch.uint16,
    "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


class Entry(NamedTuple):
    """A tensor in the file; start and end are positions in the file, in bytes."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """metadata: the text entries. entries: tensor name -> Entry; together they cover the file, of `size` bytes."""

    metadata: dict[str, str]
    entries: dict[str, Entry]
    size: int


def read_header(file: BinaryIO, path: Path) -> Header:
    """The checked header. Raises InputError if it is truncated, is not JSON, or does not match the file's size."""
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > size - 8:
        raise _damaged(path, "its header is longer than the file")
    if length > LARGEST_HEADER:
        raise _damaged(path, f"its header has {length:,} bytes, and at most {LARGEST_HEADER:,} are read")
    text = file.read(length)
    if len(text) < length:
        raise _damaged(path, "its header is longer than the file")
    return parse_header(text, size, path)


def parse_header(text: bytes, size: int, path: Path) -> Header:
    """Parses the header of a file of `size` bytes. Raises InputError if it is not JSON or does not match the size."""
    try:
        return _parse(strict_json(text, "its header"), 8 + len(text), size)
    except InputError as error:
        raise _damaged(path, str(error)) from error


def encode(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The first bytes of a file with these tensors, up to the first tensor: length and JSON, padded to a multiple of 8.

    Raises InputError for a tensor of a dtype that the file cannot hold.
    """
    codes = {dtype: (rank, code) for rank, (code, dtype) in enumerate(DTYPES.items())}
    ranked = {name: codes[tensor.dtype] for name, tensor in tensors.items()}
    header: dict[str, Any] = {METADATA: dict(metadata)}
    start = 0
    for name in sorted(tensors, key=lambda key: (ranked[key][0], key)):
        tensor = tensors[name]
        end = start + tensor.nbytes
        header[name] = {"dtype": ranked[name][1], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def check_name(name: str, what: str) -> None:
    """Raises InputError for a tensor or module name longer than LONGEST_NAME, or that is not valid Unicode."""
    if len(name) > LONGEST_NAME:
        raise InputError(f"the name of {what} has {len(name):,} characters, and at most {LONGEST_NAME} are allowed")
    if name == METADATA or any("\ud800" <= character <= "\udfff" for character in name):
        raise InputError(f"{quoted(name)} cannot be the name of {what}")


def _parse(header: Any, start: int, size: int) -> Header:
    if not isinstance(header, dict):
        raise InputError("its header is no object")
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise InputError("its metadata is no object of texts")
    entries = {name: _entry(name, entry, start, size) for name, entry in header.items()}
    place = start
    for name, entry in sorted(entries.items(), key=lambda item: item[1][2:]):
        if entry.start != place:
            raise InputError(f"tensor {quoted(name)} begins at byte {entry.start}, where {place} was to come")
        place = entry.end
    if place != size:
        raise InputError(f"its tensors end at byte {place}, and the file at {size}")
    return Header(metadata, entries, size)


def _entry(name: str, entry: Any, start: int, size: int) -> Entry:
    check_name(name, "a tensor")
    where = f"tensor {quoted(name)}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise InputError(f"{where} must have dtype, shape and data_offsets and nothing else")
    dtype = DTYPES[one_of(entry["dtype"], tuple(DTYPES), f"{where}: dtype")]
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not isinstance(shape, list) or len(shape) > _MOST_DIMENSIONS:
        raise InputError(f"{where}: its shape is no list of sizes")
    if not isinstance(offsets, list) or len(offsets) != 2:
        raise InputError(f"{where}: its data_offsets are no two numbers")
    # torch's sizes are signed 64-bit numbers, even for a tensor without elements.
    sizes = tuple(integer(length, 0, 2**63 - 1, f"{where}: a side of its shape") for length in shape)
    first, last = (integer(offset, 0, size - start, f"{where}: data_offsets") for offset in offsets)
    if math.prod(side for side in sizes if side) >= 2**63 or math.prod(sizes) * dtype.itemsize != last - first:
        raise InputError(f"{where}: its shape and dtype do not fit its data_offsets")
    return Entry(dtype, sizes, start + first, start + last)


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"{path} is truncated or damaged ({why}); save or copy it again")
