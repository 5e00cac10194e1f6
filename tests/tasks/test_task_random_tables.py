"""Random tables, against what Python's csv and pyarrow make of them."""

import csv
import gzip
import io
import json
import random
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from sparseq.errors import InputError
from sparseq.tasks import load_data
from sparseq.tasks.delimited import read_delimited
from sparseq.tasks.files import open_glue_tsv, open_table

WORDS = [
    "film", "plot", 'he said "no"', "a, b", "c; d", "two\nlines", "naïve", "你好", "", " spaced ", "it's", "x\ty", "3",
]  # fmt: skip
KINDS = [("0", "1"), ("neg", "pos"), ("1", "2", "5"), ("-1.0", "1.0"), ("0.5", "2", "3.25")]


def random_rows(draw: random.Random) -> list[list[str]]:
    labels = draw.choice(KINDS)
    count = draw.randrange(len(labels), 12)
    texts = [" ".join(draw.choice(WORDS) for _ in range(draw.randrange(1, 6))) for _ in range(count)]
    return [[text, labels[row % len(labels)]] for row, text in enumerate(texts)]


@pytest.mark.parametrize("seed", range(3))
def test_any_table_is_read_as_it_was_written(seed: int, tmp_path: Path) -> None:
    """Written by Python's csv module with any separator, quoting and line end; read as it is by pyarrow too."""
    draw = random.Random(seed)
    for _ in range(300):
        mark, rows = draw.choice(",;\t"), random_rows(draw)
        content = io.StringIO(newline="")
        quoting = draw.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
        end = draw.choice(["\n", "\r\n"])
        csv.writer(content, delimiter=mark, lineterminator=end, quoting=quoting).writerows([["text", "label"], *rows])
        written = content.getvalue().encode()
        path = tmp_path / draw.choice(["a.csv", "a.tsv"])
        path.write_bytes(written)
        assert [list(fields) for _, fields in open_table(path).records] == rows, written
        arrow = arrow_csv.read_csv(
            io.BytesIO(written),
            parse_options=arrow_csv.ParseOptions(delimiter=mark, newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(column_types={"text": pa.string(), "label": pa.string()}),
        )
        assert list(map(list, zip(*arrow.to_pydict().values(), strict=True))) == rows


@pytest.mark.parametrize("seed", range(3))
def test_any_text_is_read_as_python_reads_it_or_refused(seed: int, tmp_path: Path) -> None:
    """Texts of separators, quotes and line ends in any order: never other rows, and never another error."""
    draw = random.Random(seed)
    path, outcomes = tmp_path / "a.csv", {True: 0, False: 0}
    for _ in range(800):
        text = "text,label" + draw.choice(["\n", "\r\n", "\r"])
        text += "".join(draw.choice('ab1,,"\n\n\r ;') for _ in range(draw.randrange(1, 24)))
        try:
            found = [list(fields) for _, fields in read_delimited(path, text, ",").records]
        except InputError as error:
            assert "\n" not in str(error) and str(path) in str(error)
            outcomes[False] += 1
            continue
        wanted = [
            row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if "".join(row).strip() or row[1:]
        ]
        assert found == wanted[1:], text
        outcomes[True] += 1
    assert min(outcomes.values()) > 30


@pytest.mark.parametrize("seed", range(3))
def test_every_kind_of_file_gives_the_same_data(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    for number in range(3):
        rows = random_rows(draw)
        columns = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
        objects = [dict(zip(columns, row, strict=True)) for row in rows]
        paths = [tmp_path / f"{number}.{suffix}" for suffix in ("csv", "tsv", "jsonl", "json", "parquet")]
        for path, mark in zip(paths, (",", "\t"), strict=False):
            with path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file, delimiter=mark).writerows([list(columns), *rows])
        paths[2].write_text("".join(json.dumps(one) + "\n" for one in objects))
        paths[3].write_text(json.dumps(objects, indent=1, ensure_ascii=False), encoding="utf-8")
        parquet.write_table(pa.table(columns), paths[4])
        found = [load_data("custom", train_file=path, validation_file=path) for path in paths]
        assert all(data.task == found[0].task for data in found)
        read = [list(data.train or ()) for data in found]
        assert all(one == read[0] for one in read) and len(read[0]) == len(rows)


def test_glues_own_files_hold_anything_but_tabs_and_line_ends(tmp_path: Path) -> None:
    draw = random.Random(0)
    for _ in range(300):
        rows = [["".join(draw.choice("ab\" ,;'") for _ in range(9)) + "x", str(row % 2)] for row in range(5)]
        end = draw.choice(["\n", "\r\n", "\r"])
        (tmp_path / "dev.tsv").write_bytes(end.join("\t".join(row) for row in [["sentence", "label"], *rows]).encode())
        assert [list(fields) for _, fields in open_glue_tsv(tmp_path / "dev.tsv").records] == rows


def damaged(draw: random.Random, content: bytes) -> bytes:
    """Some bytes changed, taken out or put in."""
    altered = bytearray(content)
    for _ in range(draw.randrange(1, 5)):
        place = draw.randrange(len(altered))
        if (kind := draw.randrange(3)) == 0:
            altered[place] = draw.randrange(256)
        elif kind == 1 and len(altered) > 20:
            del altered[place : place + draw.randrange(1, 9)]
        else:
            altered[place:place] = bytes(draw.randrange(256) for _ in range(3))
    return bytes(altered)


@pytest.mark.parametrize("name", ["a.parquet", "a.csv.gz", "a.json", "a.jsonl", "a.csv"])
def test_a_damaged_file_is_read_or_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    objects = [{"text": "é, one", "label": row % 2} for row in range(6)]
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(objects), sink)
    table = ("text,label\n" + '"é, one",1\nother,0\n' * 20).encode()
    content = {
        "a.parquet": sink.getvalue().to_pybytes(),
        "a.csv.gz": gzip.compress(table),
        "a.json": json.dumps(objects, indent=1).encode(),
        "a.jsonl": "".join(json.dumps(one) + "\n" for one in objects).encode(),
        "a.csv": table,
    }[name]
    draw, refused = random.Random(name), 0
    for _ in range(150):
        (tmp_path / name).write_bytes(damaged(draw, content))
        try:
            open_table(tmp_path / name).select(["text"], "label")
        except InputError as error:
            assert "\n" not in str(error) and name in str(error)
            refused += 1
    assert refused > 20
