"""Opening tables of text: the user's own files of any usual kind, and GLUE's unquoted TSV files.

Every error names the file and the line, counted from 1 as an editor does.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from sparseq.errors import InputError
from sparseq.reading import LARGE, brief, decode, lines_of, read_bytes
from sparseq.tasks.delimited import read_delimited
from sparseq.tasks.json_rows import read_json_rows
from sparseq.tasks.parquet import read_parquet
from sparseq.tasks.table import Record, Table, name_list

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
"""The suffixes of own files; each may be followed by `.gz`."""

OPTIONS = {"text": "--text-columns", "label": "--label-column"}
"""The options that name the columns of an own file on the command line."""

_EXCEL = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers")
_PACKED = {
    ".zip": "ZIP",
    ".bz2": "bzip2",
    ".xz": "xz",
    ".zst": "Zstandard",
    ".7z": "7-Zip",
    ".tar": "tar",
    ".tgz": "tar",
}
_CSV = "save the table as CSV (UTF-8)"
_UNPACK = "unpack it, or compress it with gzip"
_MAGIC = {  # first bytes of a file -> what it is, and what to do
    b"PK\x03\x04": ("a ZIP archive or an Excel workbook", _CSV),
    b"\xd0\xcf\x11\xe0": ("an Excel workbook", _CSV),
    b"%PDF-": ("a PDF document", _CSV),
    b"SQLite format 3\0": ("an SQLite database", _CSV),
    b"ARROW1": ("an Arrow file", "write it as Parquet"),
    b"BZh": ("compressed with bzip2", _UNPACK),
    b"\xfd7zXZ": ("compressed with xz", _UNPACK),
    b"\x28\xb5\x2f\xfd": ("compressed with Zstandard", _UNPACK),
    b"7z\xbc\xaf\x27\x1c": ("compressed with 7-Zip", _UNPACK),
    b"\x1f\x8b": ("compressed with gzip twice", "compress it once"),
    b"version https://git-lfs": ("a pointer of Git LFS, and not the file itself", "fetch that with git lfs pull"),
    b"\x80\x04\x95": ("a pickle, which is not read because it may run any program", _CSV),
}
_WEB_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype html|html|head|\?xml)\b", re.IGNORECASE)
_TAR = (257, b"ustar")
_VERSION = re.compile(r"(\.v?\d+)?")  # suffixes that a data set of the hub may have
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/+(?=[^/])")
_GZIP = b"\x1f\x8b"
_CHUNK = 2**24
# Text is compressed 3 to 20 times, a table with one repeated row 1,000 times; more only in a decompression bomb.
_BOMB_RATIO, _BOMB_BYTES = 400, 2**28
_BYTE_ORDER_MARKS = (  # UTF-32 first, because its mark begins like that of UTF-16
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


def open_table(path: Path) -> Table:
    """Opens the user's own file as a table; the format follows from the suffix.

    `.csv` and `.tsv` have a header and use double quotes. `.jsonl`, `.ndjson` and `.json` have one JSON object per
    line, or one array of objects. `.parquet` is read by pyarrow. A file with `.gz` after that is decompressed. Text is
    UTF-8, or UTF-16 or UTF-32 with a byte-order mark.

    Raises:
        InputError: no such file, unknown suffix, empty file, bad quotes, a wrong number of fields, invalid JSON, text
            in another encoding.
    """
    suffix = _suffix(path)
    content = _decompressed(path, read_bytes(path))
    _check_kind(path, content)
    return replace(_read(path, suffix, content), options=OPTIONS)


def _read(path: Path, suffix: str, content: bytes) -> Table:
    if suffix == ".parquet":
        return read_parquet(path, content)
    text = _text(path, content)
    if not text.strip():
        raise InputError(f"{path} is empty: expected rows of data")
    if suffix in (".csv", ".tsv"):
        return read_delimited(path, text, "," if suffix == ".csv" else "\t")
    return read_json_rows(path, text)


def _suffix(path: Path) -> str:
    """The suffix that determines the format. Raises InputError, with the reason, for one that is not read."""
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    suffix, named = plain.suffix.lower(), str(path)
    if _ADDRESS.match(named) and not os.path.lexists(path):
        raise InputError(f"{named.replace(':/', '://', 1)} is an address: own data is read from files, so download it")
    if suffix in SUFFIXES:
        return suffix
    if not os.path.lexists(path):
        if _VERSION.fullmatch(suffix) and named.count("/") <= 1 and not named.startswith((".", "~", "/")):
            raise InputError(
                f"there is no file {path}: where that is a data set of the Hugging Face hub, give it as --dataset "
                f"{named}"
            )
        raise InputError(f"there is no file {path}: give the path of an existing file")
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder: give a file with one of the suffixes {', '.join(SUFFIXES)}")
    if suffix in _EXCEL:
        raise InputError(f"{path} is a spreadsheet, which is not read: save it there as CSV (UTF-8)")
    if packed := _PACKED.get(path.suffix.lower()) or _PACKED.get(suffix):
        raise InputError(f"{path} is compressed with {packed}, which is not read: {_UNPACK}")
    has = f"has the suffix {suffix!r}" if suffix else "has a name that does not say what it holds"
    raise InputError(f"{path} {has}: expected one of {', '.join(SUFFIXES)}, perhaps with .gz")


def _decompressed(path: Path, content: bytes) -> bytes:
    """Decompresses gzip. Raises InputError if the data is damaged or becomes too large."""
    if not content.startswith(_GZIP):
        if path.suffix.lower() == ".gz":
            raise InputError(f"{path} is not compressed with gzip, as its suffix says: take .gz off its name")
        return content
    limit = min(LARGE, max(_BOMB_BYTES, _BOMB_RATIO * len(content)))
    grown = bytearray()
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            while chunk := file.read(min(_CHUNK, limit + 1 - len(grown))):
                grown += chunk
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be decompressed ({brief(error)}): it is damaged or cut short") from error
    except MemoryError as error:
        raise InputError(f"{path} does not fit into memory once decompressed") from error
    if len(grown) > limit:
        raise InputError(
            f"{path} grows to more than {limit // 2**20:,} MiB once decompressed, the most that is read of it"
        )
    return bytes(grown)


def _check_kind(path: Path, content: bytes) -> None:
    """Raises InputError for content that is neither a table of text nor Parquet, whatever its name."""
    for magic, (kind, way_out) in _MAGIC.items():
        if content.startswith(magic):
            raise InputError(f"{path} is {kind}, whatever its name says: {way_out}")
    if content.startswith(_TAR[1], _TAR[0]):
        raise InputError(f"{path} is a tar archive, whatever its name says: unpack it")
    if _WEB_PAGE.match(content[:200]):
        raise InputError(f"{path} is a web page or XML, whatever its name says: download the file itself")


def _text(path: Path, content: bytes) -> str:
    if content.startswith(b"PAR1"):
        raise InputError(f"{path} is a Parquet file: give it the suffix .parquet")
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")
    text = decode(content, path, encoding)
    if "\0" in text[: text.find("\n")]:
        raise InputError(
            f"line 1 of {path} holds zero bytes, as UTF-16 without a byte-order mark does: save it as UTF-8"
        )
    return text


def open_glue_tsv(path: Path, columns: Sequence[str] | None = None, *, skip_bad: bool = False) -> Table:
    """One of GLUE's own files as a table: tab-separated, quotes are plain characters.

    Args:
        path: the file.
        columns: names for the columns of a file without a header (CoLA).
        skip_bad: leave out and count rows with a wrong number of fields, as is usual for QQP, where a few questions
            contain line breaks; otherwise such a row raises InputError.
    """
    content = _decompressed(path, read_bytes(path))
    _check_kind(path, content)
    text = _text(path, content)
    # A lone CR is a line end (old Mac) only if there is no other line end: some of GLUE's sentences contain one.
    lines = text.split("\n") if "\n" in text else lines_of(text)
    if not text.strip():
        raise InputError(f"{path} is empty: expected rows with a text and a label")
    start = 0
    if columns is None:
        columns, start = [name.strip() for name in lines[0].split("\t")], 1
    header, errors = tuple(columns), list[int]()

    def records() -> Iterator[Record]:
        for line, part in enumerate(lines[start:], start + 1):
            if not part.strip():
                continue
            fields = part.rstrip("\r").split("\t")
            if len(fields) == len(header):
                yield line, fields
            elif skip_bad:
                errors.append(line)
            else:
                raise InputError(
                    f"line {line} of {path} has {len(fields)} tab-separated fields: expected {len(header)} "
                    f"({name_list(header)})"
                )

    return Table(path, header, records(), errors)
