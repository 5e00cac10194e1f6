"""Files as people have them: each kind is read, with the same rows, or refused with the true reason."""

import csv
import gzip
import json
import zlib
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from sparseq.errors import InputError
from sparseq.tasks import Data, load_data
from sparseq.tasks import files as files_module

ROWS = [("good; very, good", "1"), ("tab\there", "0"), ("naïve 你好", "1"), ("over\ntwo lines", "0")]
READ = [{"text_a": text, "label": int(label)} for text, label in ROWS]


def load(path: Path) -> Data:
    return load_data("custom", train_file=path, validation_file=path)


def table(separator: str = ",", header: str = "text{}label", end: str = "\n") -> str:
    def quoted(text: str) -> str:
        return f'"{text}"' if any(mark in text for mark in ",;\t\n") else text

    return header.format(separator) + end + "".join(f"{quoted(text)}{separator}{label}{end}" for text, label in ROWS)


def objects() -> list[dict[str, object]]:
    return [{"text": text, "label": int(label)} for text, label in ROWS]


def parquet_bytes(**columns: object) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns or {"text": [t for t, _ in ROWS], "label": [int(n) for _, n in ROWS]}), sink)
    return sink.getvalue().to_pybytes()


def lines(end: str = "\n") -> str:
    return "".join(json.dumps(row) + end for row in objects())


READ_KINDS: dict[str, tuple[str, bytes]] = {
    "comma": ("a.csv", table().encode()),
    "semicolon": ("a.csv", table(";").encode()),
    "Excel's first line": ("a.csv", ("sep=;\r\n" + table(";", end="\r\n").replace("\r\ntwo", "\ntwo")).encode()),
    "tab in a csv": ("a.csv", table("\t").encode()),
    "comma in a tsv": ("a.tsv", table().encode()),
    "upper-case suffix": ("A.CSV", table().encode()),
    "spaces around names": ("a.csv", table(header=" text {} label ").encode()),
    "quoted names with spaces": ("a.csv", table(header='"text "{}" label"').encode()),
    "byte-order mark": ("a.csv", table().encode("utf-8-sig")),
    "UTF-16": ("a.csv", table().encode("utf-16")),
    "UTF-16, big end first": ("a.tsv", ("\ufeff" + table("\t")).encode("utf-16-be")),
    "UTF-32": ("a.csv", table().encode("utf-32")),
    "blank lines": ("a.csv", ("\n\n" + table() + "\n  \n\n").encode()),
    "no last line end": ("a.csv", table().rstrip("\n").encode()),
    "csv.gz": ("a.csv.gz", gzip.compress(table().encode())),
    "tsv.gz": ("a.tsv.gz", gzip.compress(table("\t").encode())),
    "jsonl.gz": ("a.jsonl.gz", gzip.compress(lines().encode())),
    "gzip without its suffix": ("a.csv", gzip.compress(table().encode())),
    "gzip in two members": ("a.csv.gz", gzip.compress(table().encode()[:20]) + gzip.compress(table().encode()[20:])),
    "json lines": ("a.jsonl", lines().encode()),
    "ndjson": ("a.ndjson", lines().encode()),
    "json lines, CR LF": ("a.jsonl", lines("\r\n").encode()),
    "json lines of an old Mac": ("a.jsonl", lines("\r").encode()),
    "json array": ("a.json", json.dumps(objects()).encode()),
    "json array over lines": ("a.json", json.dumps(objects(), indent=2).encode()),
    "json array in a jsonl": ("a.jsonl", json.dumps(objects()).encode()),
    "json names with spaces": ("a.json", lines().replace('"text"', '" text "').encode()),
    "json in UTF-16": ("a.json", lines().encode("utf-16")),
    "parquet": ("a.parquet", parquet_bytes()),
    "parquet of floats": ("a.parquet", parquet_bytes(text=[t for t, _ in ROWS], label=[float(n) for _, n in ROWS])),
    "parquet of truth values": (
        "a.parquet",
        parquet_bytes(text=[t for t, _ in ROWS], label=[n == "1" for _, n in ROWS]),
    ),
}


@pytest.mark.parametrize("kind", READ_KINDS)
def test_kinds_that_are_read(kind: str, tmp_path: Path) -> None:
    name, content = READ_KINDS[kind]
    (tmp_path / name).write_bytes(content)
    data = load(tmp_path / name)
    assert data.train is not None
    assert list(data.train) == READ
    assert data.summary()[0].startswith(f"{len(ROWS)} training rows from ")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["Unix", "Windows", "old Mac"])
def test_every_line_end(end: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(table(end=end).replace("over\ntwo lines", f"over{end}two lines").encode())
    train = load(tmp_path / "a.csv").train
    assert train is not None
    assert list(train["text_a"]) == [text for text, _ in ROWS[:3]] + [f"over{end}two lines"]


def test_a_field_of_any_length(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    text = "word " * 60_000
    (tmp_path / "a.csv").write_text(f"text,label\n{text},1\nb,0\n")
    train = load(tmp_path / "a.csv").train
    assert train is not None and train["text_a"][0] == text
    assert csv.field_size_limit() == before  # it is the whole process's


REFUSED: dict[str, tuple[str, bytes | None, str]] = {
    "latin-1": ("a.csv", b"text,label\na,1\ncaf\xe9,0\n", r"line 3 of .*a\.csv is not UTF-8 text \(byte 0xe9"),
    "latin-1, old Mac": ("a.csv", b"text,label\ra,1\rcaf\xe9,0\r", r"line 3 of .*a\.csv is not UTF-8 text"),
    "half a pair in UTF-16": (
        "a.csv",
        b"\xff\xfe" + "text,label\na".encode("utf-16-le") + b"\x00\xd8" + ",1\nb,0\n".encode("utf-16-le"),
        r"line 2 of .*a\.csv is not UTF-16 text",
    ),
    "half a pair in UTF-8": ("a.csv", b"text,label\na,1\n\xed\xa0\x80,0\n", r"line 3 of .*a\.csv is not UTF-8 text"),
    "half a pair in JSON": (
        "a.jsonl",
        b'{"text": "a", "label": 1}\n{"text": "\\ud800", "label": 0}\n',
        r"line 2 of .*a\.jsonl .*half of a surrogate pair",
    ),
    "half a pair in a JSON array": (
        "a.json",
        b'[{"text": "a", "label": 1},\n{"text": "\\uDFFF", "label": 0}]',
        r"a\.json .*line 2 .*half of a surrogate pair",
    ),
    "a JSON array cut short": ("a.json", b'[{"text": "a", "label": 1},\n{"te', r"line 2 of .*a\.json is not JSON"),
    "a JSON array without a comma": (
        "a.json",
        b'[{"text": "a", "label": 1}\n{"text": "b", "label": 0}]',
        r"line 2 of .*a\.json is not JSON \(expected a comma",
    ),
    "more after a JSON array": ("a.json", b'[{"text": "a", "label": 1}]\n\n[]', r"line 3 of .*more follows"),
    "a name twice in a JSON array": ("a.json", b'[{"text": "a", "text": "b"}]', r"'text' stands twice.*line 1"),
    "a deep JSON array": ("a.json", b"[" * 100_000, r"a\.json .*(nested too deeply|no JSON object)"),
    "an empty JSON array": ("a.json", b"[ ]", r"a\.json holds no rows of data"),
    "JSON columns": ("a.json", b'{"text": ["a", "b"], "label": [0, 1]}', r"line 1 of .*holds whole columns"),
    "a JSON object over lines": ("a.json", b'{\n"text": "a",\n"label": 0\n}', r"line 1 of .*is not JSON"),
    "zero bytes": ("a.csv", "text,label\na,1\nb,0\n".encode("utf-16-le"), r"line 1 of .*zero bytes, as UTF-16"),
    "no header": ("a.csv", b"good film,1\nbad film,0\n", r"first line must name the columns, .* reads 'good film, 1'"),
    "no header, json": ("a.json", b'["good film", 1]', r"line 1 of .*a\.json is no JSON object"),
    "many columns": (
        "a.csv",
        ("text," + ",".join(f"c{i}" * 50 for i in range(900)) + "\n" + "," * 900 + "\n").encode(),
        r"'label' is missing in .*a\.csv: its columns are text, c0c0.*, \.\.\.; .* --label-column$",
    ),
    "another spelling": ("a.csv", b"text,Label\na,1\nb,0\n", r"'label' is missing .*\(did you mean 'Label'\?\)"),
    "a spreadsheet": ("a.xlsx", b"PK\x03\x04", r"a\.xlsx is a spreadsheet, which is not read: save it there as CSV"),
    "a spreadsheet's name changed": ("a.csv", b"PK\x03\x04...", r"a\.csv is a ZIP archive or an Excel workbook"),
    "an old spreadsheet's name changed": ("a.csv", b"\xd0\xcf\x11\xe0...", r"a\.csv is an Excel workbook"),
    "parquet's name changed": ("a.csv", parquet_bytes(), r"a\.csv is a Parquet file: give it the suffix \.parquet"),
    "zip": ("a.csv.zip", b"PK", r"a\.csv\.zip is compressed with ZIP, which is not read"),
    "xz": ("a.csv.xz", b"\xfd7zXZ", r"compressed with xz, which is not read"),
    "plain text named gz": ("a.csv.gz", table().encode(), r"a\.csv\.gz is not compressed with gzip"),
    "gzip cut short": ("a.csv.gz", gzip.compress(table().encode())[:-6], r"cannot be decompressed .*cut short"),
    "gzip with a flipped bit": (
        "a.csv.gz",
        gzip.compress(table().encode())[:-8] + b"\0" * 8,
        r"cannot be decompressed .*damaged",
    ),
    "no parquet": ("a.parquet", b"text,label\na,1\n", r"a\.parquet cannot be read as Parquet"),
    "parquet cut short": ("a.parquet", parquet_bytes()[:-20], r"a\.parquet cannot be read as Parquet"),
    "a missing label in parquet": (
        "a.parquet",
        parquet_bytes(text=["a", "b"], label=[1.0, None]),
        r"row 2 of .*a\.parquet has no label",
    ),
    "NaN for a label in parquet": (
        "a.parquet",
        parquet_bytes(text=["a", "b"], label=[float("nan"), 1.0]),
        r"row 1 of .*a\.parquet has no label",
    ),
    "lists in parquet": ("a.parquet", parquet_bytes(text=[["a"], ["b"]], label=[0, 1]), r"row 1 of .* has \['a'\]"),
    "text that is not UTF-8 in parquet": (
        "a.parquet",
        parquet_bytes(
            text=pa.Array.from_buffers(
                pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xe9")]
            ),
            label=[0],
        ),
        r"a\.parquet holds text that is not UTF-8, in or after row 1",
    ),
    "plain text": ("a.txt", b"a\t1\n", r"a\.txt has the suffix '\.txt': expected one of \.csv"),
    "nothing but blank lines": ("a.csv", b"\n \n\n", r"a\.csv is empty"),
    "nothing but a mark": ("a.csv", b"\xef\xbb\xbf", r"a\.csv is empty"),
    "a hub's name": ("stanfordnlp/imdb", None, r"no file stanfordnlp/imdb: .* data set of the Hugging Face hub"),
    "a hub's short name": ("imdb", None, r"there is no file imdb: .* data set of the Hugging Face hub"),
    "no such file": ("./imdb.csv", None, r"there is no file imdb\.csv"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_kinds_that_are_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name, content, sentence = REFUSED[kind]
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(InputError, match=sentence) as caught:
        load(Path(name))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1500


def test_what_grows_beyond_measure_is_not_decompressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "_BOMB_BYTES", 2**20)
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(compressor.compress(bytes(2**20)) for _ in range(64)) + compressor.flush()
    (tmp_path / "a.csv.gz").write_bytes(bomb)
    assert len(bomb) < 2**17
    with pytest.raises(InputError, match=r"a\.csv\.gz grows to more than \d+ MiB once decompressed"):
        load(tmp_path / "a.csv.gz")


def test_parquet_that_grows_beyond_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sparseq.tasks.parquet.LARGE", 2**20)
    (tmp_path / "a.parquet").write_bytes(parquet_bytes(text=["x" * 2**21, "b"], label=[0, 1]))
    with pytest.raises(InputError, match=r"a\.parquet holds more than 1 MiB once decompressed"):
        load(tmp_path / "a.parquet")


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "imdb").mkdir()
    with pytest.raises(InputError, match=r"imdb is a folder: give a file with one of the suffixes \.csv"):
        load(tmp_path / "imdb")
