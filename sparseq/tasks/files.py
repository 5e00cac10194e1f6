"""Opening tables of text: the user's own files of any usual kind, and GLUE's unquoted TSV files.

Every error names the file and the line, counted from 1 as an editor does.
"""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from sparseq.errors import InputError
from sparseq.reading import LARGE, brief, decode, lines_of, read_bytes
from sparseq.tasks.delimited import read_delimited
from sparseq.tasks.json_rows import read_json_rows
from sparseq.tasks.parquet import read_parquet
from sparseq.tasks.table import Record, Table, name_list

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
"""The kinds of own file, each also with `.gz` after it."""

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
_MAGIC = {b"PK\x03\x04": "a ZIP archive or an Excel workbook", b"\xd0\xcf\x11\xe0": "an Excel workbook"}
_GZIP = b"\x1f\x8b"
_CHUNK = 2**24
# Text shrinks by 3 to 20 times, a table of one row repeated by 1,000: only what was made to fill a memory does so.
_BOMB_RATIO, _BOMB_BYTES = 400, 2**28
_BYTE_ORDER_MARKS = (  # UTF-32's first: it begins as UTF-16's does
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)


def open_table(path: Path) -> Table:
    """The user's own file as a table, by its suffix: `.csv`, `.tsv` (both with a header and the usual double quotes),
    `.jsonl`, `.ndjson` or `.json` (one JSON object a line, columns from the first; or an array of objects), `.parquet`;
    with `.gz` behind it, decompressed.

    Text is UTF-8, or UTF-16 or UTF-32 where a byte-order mark says so.

    Raises:
        InputError: no such file, unknown suffix, empty file, bad quotes, a wrong number of fields, invalid JSON, text
            in another encoding.
    """
    suffix = _suffix(path)
    content = _decompressed(path, read_bytes(path))
    if suffix == ".parquet":
        return read_parquet(path, content)
    text = _text(path, content)
    if not text.strip():
        raise InputError(f"{path} is empty: expected rows with a text and a label")
    if suffix in (".csv", ".tsv"):
        return read_delimited(path, text, "," if suffix == ".csv" else "\t")
    return read_json_rows(path, text)


def _suffix(path: Path) -> str:
    """The suffix that says what the file is. InputError for one that is not read, with the reason."""
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    suffix = plain.suffix.lower()
    if suffix in SUFFIXES:
        return suffix
    if not os.path.lexists(path):
        named = str(path)
        if suffix == "" and named.count("/") <= 1 and not named.startswith((".", "~", "/")):
            raise InputError(
                f"there is no file {path}: own data is read from files; where that is a data set of the Hugging Face "
                f"hub, save it first, as with datasets.load_dataset({named!r})['train'].to_parquet('train.parquet')"
            )
        raise InputError(f"there is no file {path}: give the path of an existing file")
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder: give a file with one of the suffixes {', '.join(SUFFIXES)}")
    if suffix in _EXCEL:
        raise InputError(f"{path} is a spreadsheet, which is not read: save it there as CSV (UTF-8)")
    if path.suffix.lower() in _PACKED:
        kind = _PACKED[path.suffix.lower()]
        raise InputError(f"{path} is compressed with {kind}, which is not read: unpack it, or compress it with gzip")
    raise InputError(f"{path} has the suffix {suffix!r}: expected one of {', '.join(SUFFIXES)}, perhaps with .gz")


def _decompressed(path: Path, content: bytes) -> bytes:
    """What gzip compressed, whatever the file's name says. InputError: damaged, or it grows beyond all measure."""
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


def _text(path: Path, content: bytes) -> str:
    for magic, kind in _MAGIC.items():
        if content.startswith(magic):
            raise InputError(f"{path} is {kind} and no text, whatever its name says: save the table as CSV (UTF-8)")
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
        skip_bad: leave out and count rows with a wrong number of fields, as GLUE's users do with QQP, where a few
            questions hold line breaks; otherwise such a row is an InputError.
    """
    text = _text(path, _decompressed(path, read_bytes(path)))
    # A lone CR is an old Mac's line end only where there is no other: some of GLUE's sentences hold one.
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
