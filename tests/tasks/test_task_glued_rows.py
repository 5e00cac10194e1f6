"""A stray double quote at the begin of a text never glues rows together in silence; texts over lines are read."""

import csv
import io
from pathlib import Path

import pytest

from sparseq.errors import InputError
from sparseq.tasks import Data, load_data

SEPARATORS = {"csv": ",", "tsv": "\t"}


def load(path: Path, text: str, **settings: object) -> Data:
    path.write_text(text, encoding="utf-8")
    return load_data("custom", train_file=path, validation_file=path, **settings)  # type: ignore[arg-type]


def plain(count: int, shape: str, names: tuple[str, str]) -> tuple[str, list[list[str]]]:
    """(header, fields of the rows) of a table without any quotes, in one of four shapes."""
    rows = []
    for row in range(count):
        text, label = f"a film of the {row}th kind", names[row * 7 % 5 % 2]
        rows.append(
            {
                "text first": [text, label],
                "label first": [label, text],
                "id and pair": [str(1000 + row), text, f"its {row}th pair", label],
                "between": [label, text, str(row)],
            }[shape]
        )
    header = {
        "text first": "text,label",
        "label first": "label,text",
        "id and pair": "id,sentence1,sentence2,label",
        "between": "label,text,id",
    }[shape]
    return header, rows


def place_of_text(shape: str) -> int:
    return {"text first": 0, "label first": 1, "id and pair": 1, "between": 1}[shape]


@pytest.mark.parametrize("suffix", SEPARATORS)
@pytest.mark.parametrize("shape", ["text first", "label first", "id and pair", "between"])
@pytest.mark.parametrize("names", [("0", "1"), ("neg", "pos")], ids=["numbers", "names"])
@pytest.mark.parametrize("span", [(4, 94), (0, 97), (10, 11), (10, 12), (95, 97)], ids=str)
def test_glued_rows_are_refused_with_the_first_line(
    span: tuple[int, int], names: tuple[str, str], shape: str, suffix: str, tmp_path: Path
) -> None:
    header, rows = plain(98, shape, names)
    text = place_of_text(shape)
    first, last = span
    rows[first][text] = '"' + rows[first][text]
    rows[last][text] += '"'
    mark = SEPARATORS[suffix]
    content = "\n".join(mark.join(fields) for fields in [header.split(","), *rows]) + "\n"
    glued = list(csv.reader(io.StringIO(content, newline=""), delimiter=mark))
    assert len(glued) == 1 + 98 - (last - first)  # what a plain reader makes of it
    with pytest.raises(InputError, match=rf"line {first + 2} of .*a\.{suffix} .*quote") as caught:
        load(tmp_path / f"a.{suffix}", content)
    assert f"line {last + 2}" in str(caught.value) or "fields where the header has" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            'text,label\nb,0\n"he began,1\nwell,0\n',
            r"line 3 of .*cannot be read \(unexpected end of data, read on to li",
        ),
        ('text,label\nb,0\n"he began,1\n"well, yes",0\n', r"line 3 of .*cannot be read \(.*expected after.*to line 4"),
        ('text,label\nb,0\nc,1\n"he" began,1\n', r"line 4 of .*cannot be read"),
        ('text,label\nb,0\n"he began,1\nand,0"\n', r"line 3 of .*has 1 fields where the header has 2"),
    ],
)
def test_other_stray_quotes_name_the_first_line_too(content: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=sentence):
        load(tmp_path / "a.csv", content)


TEXTS_OVER_LINES = [
    "First line.\nSecond line.",
    "First line,\nGreat film, really.\nBye",
    "First line,\n\nGreat film, really.\n\nBye",
    "Top:\n1, the actor\n2, the plot\n3, the end",
    "Dear all,\nI liked it,\nyours,\nA. B.",
    "roses are red,\nviolets are blue,",
    'he said "no",\nshe said "yes",\nthey left',
    "\n\n\n",
    "a\tb\nc\td\ne\tf",
    "x,\n" * 50,
    "Reviewed May 5, 2019\nGreat place, we will come back",
    "Seen May 5, 1\nand again on June 6, 0\nand then, 1",
]


@pytest.mark.parametrize("suffix", SEPARATORS)
@pytest.mark.parametrize("shape", ["text first", "label first", "id and pair", "between"])
@pytest.mark.parametrize("names", [("0", "1"), ("neg", "pos")], ids=["numbers", "names"])
def test_texts_over_several_lines_are_read(names: tuple[str, str], shape: str, suffix: str, tmp_path: Path) -> None:
    header, rows = plain(40, shape, names)
    text = place_of_text(shape)
    for row, over_lines in enumerate(TEXTS_OVER_LINES):
        rows[2 * row][text] = over_lines
    content = io.StringIO()
    csv.writer(content, delimiter=SEPARATORS[suffix], lineterminator="\n").writerows([header.split(","), *rows])
    train = load(tmp_path / f"a.{suffix}", content.getvalue()).train
    assert train is not None
    assert list(train["text_a"]) == [fields[text] for fields in rows]


def test_lines_are_counted_behind_a_text_over_lines(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"label 'maybe' in line 7 of"):
        load(tmp_path / "a.csv", 'text,label\n"a\nb\n\nc",1\n\nd,maybe\ne,0\nf,0\n')
