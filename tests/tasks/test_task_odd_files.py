"""Files that are nearly tables: joined, mislabelled, or separated otherwise; read, or refused with the reason."""

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from sparseq.errors import InputError
from sparseq.tasks import Task, load_data
from sparseq.tasks.files import open_glue_tsv
from sparseq.tasks.unlabelled import read_unlabelled

CSV = "text,label\ngood film,1\nbad film,0\n"
ROWS = [("good film", 1), ("bad film", 0)]
ONE_TEXT = Task("custom", ("text",))


def load(path: Path) -> list[tuple[str, int]]:
    train = load_data("custom", train_file=path, validation_file=path).train
    assert train is not None
    return [(row["text_a"], row["label"]) for row in train]


def parquet_bytes(**columns: object) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table({"text": [t for t, _ in ROWS], "label": [n for _, n in ROWS], **columns}), sink)
    return bytes(sink.getvalue().to_pybytes())


NOT_UTF8 = pa.Array.from_buffers(
    pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"\xe9a")]
)

READ: dict[str, tuple[str, bytes]] = {
    "pipes": ("a.csv", CSV.replace(",", "|").encode()),
    "pipes in a tsv": ("a.tsv", CSV.replace(",", "|").encode()),
    "Excel's first line, pipes": ("a.csv", ("sep=|\n" + CSV.replace(",", "|")).encode()),
    "Excel's first line in quotes": ("a.csv", ('"sep=;"\r\n' + CSV.replace(",", ";")).encode()),
    "two byte-order marks": ("a.csv", b"\xef\xbb\xbf\xef\xbb\xbf" + CSV.encode()),
    "a space after each comma": ("a.csv", b'text, label, x\n"good film", 1, "a, b"\nbad film, 0, "c"\n'),
    "a year that Python has not, in another column": (
        "a.parquet",
        parquet_bytes(made=pa.array([2**62, 1], pa.timestamp("us"))),
    ),
    "a time zone that there is not, in another column": (
        "a.parquet",
        parquet_bytes(made=pa.array([1, 2], pa.timestamp("us", tz="Mars/Olympus"))),
    ),
    "bytes that are no text, in another column": ("a.parquet", parquet_bytes(other=NOT_UTF8)),
}


@pytest.mark.parametrize("kind", READ)
def test_odd_files_that_are_read(kind: str, tmp_path: Path) -> None:
    name, content = READ[kind]
    (tmp_path / name).write_bytes(content)
    assert load(tmp_path / name) == ROWS


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
REFUSED: dict[str, tuple[str, bytes, str]] = {
    "joined with its header": ("a.csv", (CSV + CSV).encode(), r"line 4 of .*repeats the line of column names"),
    "joined, named classes": (
        "a.csv",
        b"text,label\na,pos\nb,neg\ntext,label\nc,pos\n",
        r"line 4 of .*repeats the line of column names",
    ),
    "joined with a byte-order mark": (
        "a.tsv",
        b"text\tlabel\na\tpos\nb\tneg\n\xef\xbb\xbftext\tlabel\nc\tpos\n",
        r"line 4 of .*repeats the line of column names",
    ),
    "joined, header in quotes": ("a.csv", CSV.encode() + b'"text", "label"\n', r"line 4 of "),
    "carets": ("a.csv", b"text^label\na^1\nb^0\n", r"separated by '\^', its first line reads 'text\^label'"),
    "colons": ("a.csv", b"text:label\na:1\nb:0\n", r"separated by ':'.*what is read are commas, semicolons"),
    "columns of spaces": ("a.tsv", b"text     label\na        1\nb        0\n", r"seems to be separated by spaces"),
    "Excel's first line, another mark": ("a.csv", b"sep=#\ntext#label\na#1\n", r"is separated by '#'"),
    "JSON lines in a csv": ("a.csv", b'{"text": "a", "label": 1}\n', r"looks like JSON: give it the suffix \.jsonl"),
    "a JSON array in a tsv": ("a.tsv", b'[{"text": "a", "label": 1}]', r"looks like JSON"),
    "a comment first": ("a.csv", b"# data\n" + CSV.encode(), r"line 2 of .*must name the columns, and reads '# data'"),
    "a comma at each end": ("a.csv", b"text,label\na,1,\nb,0,\n", r"line 2 .*the line ends in a comma, and the header"),
    "a space before a quote": (
        "a.csv",
        b'x,text,label\n1, "a, b",1\n',
        r"line 2 .*must stand right after a comma, without a space",
    ),
    "a backslash before a quote": (
        "a.csv",
        b'text,label\n"a \\", b",1\n',
        r"line 2 .*doubled, and not have a backslash",
    ),
    "a pointer of Git LFS": ("a.csv", LFS, r"pointer of Git LFS, .*git lfs pull"),
    "a pointer of Git LFS for JSON": ("a.jsonl", LFS, r"pointer of Git LFS"),
    "a pointer of Git LFS for Parquet": ("a.parquet", LFS, r"pointer of Git LFS"),
    "a web page": ("a.csv", b"<!DOCTYPE html><html>Not found</html>", r"is a web page or XML"),
    "a web page for JSON": ("a.json", b"\n<html><body>", r"is a web page or XML"),
    "bzip2": ("a.csv", bz2.compress(CSV.encode()), r"is compressed with bzip2, whatever its name says: unpack it"),
    "xz": ("a.csv", lzma.compress(CSV.encode()), r"is compressed with xz"),
    "Zstandard": ("a.jsonl", b"\x28\xb5\x2f\xfd\0\0", r"is compressed with Zstandard"),
    "gzip twice": ("a.csv.gz", gzip.compress(gzip.compress(CSV.encode())), r"gzip twice, .*: compress it once"),
    "tar": ("a.csv", b"a.csv".ljust(257, b"\0") + b"ustar\x0000", r"is a tar archive"),
    "tar.gz": ("a.tar.gz", gzip.compress(b"x"), r"compressed with tar"),
    "Arrow": ("a.parquet", b"ARROW1\0\0" + bytes(99), r"is an Arrow file, .*: write it as Parquet"),
    "a pickle": ("a.csv", b"\x80\x04\x95\0\0", r"is a pickle"),
    "PDF": ("a.csv", b"%PDF-1.7\n", r"is a PDF document"),
    "no suffix": ("train", CSV.encode(), r"has a name that does not say what it holds: expected one of \.csv"),
    "gz alone": ("train.gz", gzip.compress(CSV.encode()), r"has a name that does not say"),
    "no names in JSON": ("a.json", b"[{}]", r"holds no rows of data"),
    "no label column": ("a.csv", b"text,target\na,1\n", r"'label' is missing .*name the right one with --label-column"),
    "a time for a label": (
        "a.parquet",
        parquet_bytes(label=pa.array([2**62, 1], pa.timestamp("us"))),
        r"column 'label' of .*a\.parquet cannot be read",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_odd_files_that_are_refused(kind: str, tmp_path: Path) -> None:
    name, content, sentence = REFUSED[kind]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=sentence) as caught:
        load(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["https://host/train.csv", "s3://bucket/a.parquet", "hf://datasets/x/a.jsonl"])
def test_an_address_is_no_file(address: str) -> None:
    with pytest.raises(InputError, match=f"^{address} is an address: .*download it"):
        load_data("custom", train_file=address, validation_file=address)


@pytest.mark.parametrize("mark", [":", "^", "~", "  "])
def test_a_mark_in_one_name_separates_nothing(mark: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"a{mark}text\ngood film\nbad{mark}film\n")
    rows = read_unlabelled(ONE_TEXT, tmp_path / "a.csv", (f"a{mark}text",))
    assert rows.texts == [("good film",), (f"bad{mark}film",)]


def test_a_column_may_begin_in_any_object_of_json(tmp_path: Path) -> None:
    """Rows without a label may come first, and the labels of the others count."""
    rows = [{"text": "a"}, {"text": "b", "label": 1}, {"text": "c", "label": 0}]
    for name, content in (("a.json", json.dumps(rows)), ("a.jsonl", "\n".join(map(json.dumps, rows)))):
        (tmp_path / name).write_text(content)
        (tmp_path / "dev.csv").write_text(CSV)
        data = load_data(
            "custom", train_file=tmp_path / name, validation_file=tmp_path / "dev.csv", allow_unlabelled=True
        )
        assert data.train is not None and list(data.train["label"]) == [-100, 1, 0]
        with pytest.raises(InputError, match=r"line 1 of .* has no label"):
            load(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("text\na\n\nb\n", ["a", "", "b"]),
        ("\ntext\n\n\na\n\n\n", ["", "", "a"]),
        ('text\r\n"a\r\n\r\nb"\r\n\r\nc\r\n', ["a\r\n\r\nb", "", "c"]),
        ("text,x\na,1\n\nb,2\n", ["a", "b"]),
    ],
)
def test_a_blank_line_is_a_row_of_one_column(content: str, texts: list[str], tmp_path: Path) -> None:
    """Predictions for a file of texts stay beside their lines; where there are more columns, it is no row."""
    (tmp_path / "a.csv").write_bytes(content.encode())
    assert [text for (text,) in read_unlabelled(ONE_TEXT, tmp_path / "a.csv").texts] == texts


@pytest.mark.parametrize(
    ("content", "index"),
    [
        ("idx,text\n5,a\n3,b\n", ["5", "3"]),
        ("id,text\n5,a\n,b\n", [None, None]),  # a row's number would stand among the numbers of the others
        ("id,id,text\n5,6,a\n", [None]),
    ],
)
def test_the_index_is_that_of_every_row_or_none(content: str, index: list[str | None], tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(content)
    assert read_unlabelled(ONE_TEXT, tmp_path / "a.csv").labels == index


def test_glued_rows_whose_texts_hold_commas(tmp_path: Path) -> None:
    """A text with commas in quotes lost one of its quotes in each of two rows."""
    rows = "".join(f'"it is, {word}",{number % 2}\n' for number, word in enumerate("abcdefghijklmnopqrst"))
    glued = '"the film, and so,1\nthe plot, and so",0\n'
    (tmp_path / "a.csv").write_text("text,label\n" + rows + glued)
    with pytest.raises(InputError, match=r"line 22 of .* begins a quoted text that ends in line 23"):
        load(tmp_path / "a.csv")


def test_a_web_page_in_glues_folder(tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").write_bytes(b"<html>")
    with pytest.raises(InputError, match="is a web page"):
        open_glue_tsv(tmp_path / "dev.tsv")
