"""`sparseq predict`."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sparseq.errors import InputError
from sparseq.extras import require
from sparseq.paths import check_new_folder, expanded
from sparseq.reading import LARGE, decode, lines_of
from sparseq.terminal import counted, say, say_json, write

if TYPE_CHECKING:
    from sparseq.train.predicting import Predicted, Prediction, Predictor

EXTRA = "hf"
TEST_SPLIT = "test"
"""The split that is predicted unless another is named."""
HELP = "label texts with the model in a finished run's folder"
EXAMPLES = """\
examples:
  sparseq predict runs/student "a charming, funny film"
  sparseq predict runs/pairs "How old are you?" --text-pair "What is your age?"
  sparseq predict runs/student < texts.txt          one text a line; the parts of a pair separated by a tab
  sparseq predict runs/student --file test.csv --out predictions.csv
  sparseq predict runs/student --dataset nyu-mll/glue:sst2 --split test --out predictions.csv
  sparseq predict runs/student --data-dir glue --submission glue-submission

Each line of output has the label, its probability (the number itself for regression) and the text, separated by tabs. A
blank line on stdin gives a blank line, so that line n of the output always belongs to line n of the input."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, and texts or files of them."""
    parser.add_argument("folder", metavar="DIR", help="a folder that `sparseq compress` has written, or a "
                        "file that `sparseq export` has")  # fmt: skip
    # With a default, argparse does not call it required if the folder is missing.
    parser.add_argument("text", nargs="*", default=[], help="texts; without any, they are read from stdin, one a line")
    parser.add_argument("--text-pair", metavar="TEXT", help="the second text, for tasks on pairs")
    parser.add_argument(
        "--file", metavar="FILE", help="a file of texts, .csv, .tsv, .jsonl or .parquet, or a test file of GLUE's"
    )
    parser.add_argument("--dataset", metavar="ID[:CONFIG]", help="a data set, see `sparseq compress`")
    parser.add_argument("--split", metavar="SPLIT", help=f"its split, or a part of one (default: {TEST_SPLIT})")
    parser.add_argument("--text-columns", metavar="A[,B]", help="the file's or data set's text column or columns")
    parser.add_argument("--data-dir", metavar="DIR", help="the task's test files in the classic GLUE layout")
    parser.add_argument("--out", metavar="FILE", help="write the predictions there: .tsv, .csv or .jsonl")
    parser.add_argument(
        "--submission", metavar="DIR", help="write the predictions there as GLUE takes them, with the names it expects"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    require(EXTRA)
    from sparseq.train.predicting import Predictor, check_output, predict_file, predict_glue_tests, predict_split
    from sparseq.train.recipe import Recipe

    out = check_output(expanded(arguments.out), arguments.file and expanded(arguments.file)) if arguments.out else None
    submission = check_new_folder(expanded(arguments.submission), "--submission") if arguments.submission else None
    predictor = Predictor(arguments.folder)
    if not (arguments.file or arguments.dataset or arguments.data_dir):
        index, found = _texts(arguments, predictor)
        _give(arguments, out, index, found)
        return 0
    columns = Recipe.settings()["text_columns"].value("text_columns", arguments.text_columns) or None
    if arguments.file:
        predicted = [predict_file(predictor, arguments.file, columns)]
    elif arguments.dataset:
        predicted = [predict_split(predictor, arguments.dataset, arguments.split or TEST_SPLIT, columns)]
    else:
        predicted = predict_glue_tests(predictor, arguments.data_dir)
    for one in predicted:
        say(f"{counted(len(one.predictions), 'row')} from {one.path}", error=True)
    if submission:
        _submit(submission, predicted)
    if out or not submission:
        for one in predicted:
            _give(arguments, out, one.index, one.predictions)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raises InputError for arguments that contradict each other."""
    sources = {
        "texts": arguments.text,
        "--file": arguments.file,
        "--dataset": arguments.dataset,
        "--data-dir": arguments.data_dir,
    }
    given = [name for name, value in sources.items() if value]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} are given: predict one of them at a time")
    if arguments.text_pair is not None and len(arguments.text) != 1:
        raise InputError(
            "--text-pair goes with one text given as an argument; give several pairs on stdin, the parts separated by "
            "a tab, or with --file"
        )
    if arguments.text_columns and not (arguments.file or arguments.dataset):
        raise InputError("--text-columns names columns of --file or --dataset: give one of them too")
    if arguments.split and not arguments.dataset:
        raise InputError("--split names a split of --dataset: give that too")
    if arguments.submission and given not in (["--file"], ["--data-dir"]):
        raise InputError("--submission is made from GLUE's test files: give --data-dir, or --file")
    if arguments.data_dir and not arguments.submission:
        raise InputError("--data-dir is for GLUE's submissions: give --submission with a folder to write them to")
    if arguments.json and arguments.out:
        raise InputError(
            "--json is for what is printed, and --out prints nothing: give --out the suffix .jsonl instead"
        )
    if arguments.json and arguments.submission:
        raise InputError("--json is for what is printed, and --submission prints nothing: give one of them")
    if arguments.out and arguments.data_dir:
        raise InputError("--out is one file, and --data-dir may hold several test files: give --submission alone")


def _texts(arguments: argparse.Namespace, predictor: "Predictor") -> "tuple[list[str], list[Prediction | None]]":
    """Predictions for the arguments, or for the lines of stdin (None for a blank line), with their numbers from 0."""
    if arguments.text:
        pair = (arguments.text_pair,) if arguments.text_pair is not None else ()
        found = predictor.predict([(text, *pair) for text in arguments.text])
    else:
        wants_pairs = len(predictor.task.columns) == 2
        lines = _stdin_lines()
        # In a task with one text a tab is ordinary white space.
        texts = [tuple(line.split("\t")) if wants_pairs else (line,) for line in lines]
        kept = [text if line.strip() else None for text, line in zip(texts, lines, strict=True)]
        found = predictor.predict(kept, lambda row: f"line {row + 1} of stdin")
    return [str(row) for row in range(len(found))], found


def _stdin_lines() -> list[str]:
    """The lines of stdin without their ends. Raises InputError if there is no stdin, or for an invalid byte."""
    if sys.stdin is None:
        raise InputError("there is no stdin to read texts from: give them as arguments")
    if sys.stdin.isatty():
        say("reading texts from the terminal, one a line; end with Ctrl-D", error=True)
    binary = getattr(sys.stdin, "buffer", None)
    if binary is None:  # stdin was replaced by a text stream
        return lines_of(sys.stdin.read())
    content = binary.read(LARGE + 1)
    if len(content) > LARGE:
        raise InputError(f"stdin gives more than {LARGE // 2**20:,} MiB, the most that is read of it")
    return lines_of(decode(content, "stdin", sys.stdin.encoding or "utf-8"))


def _give(
    arguments: argparse.Namespace,
    out: Path | None,
    index: list[str],
    found: "list[Prediction | None] | list[Prediction]",
) -> None:
    """Prints predictions, or writes them to a file."""
    from sparseq.train.predicting import table_of, write_output

    if out is not None:
        write_output(out, table_of(index, found, out.suffix.lower()))
        return
    for at, one in zip(index, found, strict=True):
        if arguments.json:
            say_json(
                {"index": at, "label": None, "value": None, "text": []}
                if one is None
                else {"index": at, "label": one.label, "value": one.value, "text": list(one.text)}
            )
        elif one is None:
            write("\n")
        else:
            say(one.label, f"{one.value:.4f}", *one.text, separator="\t")


def _submit(folder: Path, predicted: "list[Predicted]") -> None:
    from sparseq.tasks.unlabelled import TEST_ROWS
    from sparseq.train.predicting import write_output

    for name, content in [one.submission() for one in predicted]:  # all are predicted before the first is written
        write_output(folder / name, content)
        say(f"wrote {folder / name}", error=True)
        rows, expected = content.count("\n") - 1, TEST_ROWS[name.removesuffix(".tsv")]
        if rows != expected:
            say(
                f"{name} has {counted(rows, 'row')}, and GLUE's test set {expected:,}: it will not be taken", error=True
            )
