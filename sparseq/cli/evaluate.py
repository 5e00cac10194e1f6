"""`sparseq evaluate`."""

import argparse

from sparseq.extras import require
from sparseq.terminal import counted, say, say_json
from sparseq.train.gate import Drop
from sparseq.train.given import named_function

from .exits import code_of

EXTRA = "train"
HELP = "score the model in a finished run's folder"
EXAMPLES = """\
examples:
  sparseq evaluate runs/student
  sparseq evaluate runs/student --validation-file other.csv --text-columns review --label-column label
  sparseq evaluate runs/student --dataset stanfordnlp/imdb --validation-split test
  sparseq evaluate runs/student --max-drop 0.5 --baseline runs/teacher
  sparseq evaluate runs/student --json
  sparseq evaluate exported/model.onnx"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, and other data to score it on."""
    parser.add_argument("folder", metavar="DIR", help="a folder that `sparseq compress` has written, or a "
                        "file that `sparseq export` has")  # fmt: skip
    parser.add_argument("--data-dir", metavar="DIR", help="other data: the task in the classic GLUE layout")
    parser.add_argument("--validation-file", metavar="FILE", help="other data: your own .csv, .tsv, .jsonl or .parquet")
    parser.add_argument("--dataset", metavar="ID[:CONFIG]", help="other data: a data set, see `sparseq compress`")
    parser.add_argument("--validation-split", metavar="SPLIT", help="the split of that data set, or of the run's own")
    parser.add_argument("--text-columns", metavar="A[,B]", help="your rows' text column or columns")
    parser.add_argument("--label-column", metavar="NAME", help="your rows' label column")
    parser.add_argument("--max-validation-rows", metavar="N", help="a random subset of so many rows")
    parser.add_argument("--metric", metavar="MODULE:FUNCTION", help="a score of your own, see `sparseq compress`")
    parser.add_argument(
        "--max-drop",
        metavar="POINTS",
        help="exit with 3 if the model scores more than this many points below its teacher, or --baseline",
    )
    parser.add_argument("--baseline", metavar="M", help="the fine-tuned model that the score is compared with")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    require(EXTRA)
    from sparseq.train import Recipe, evaluate

    given = {
        name: Recipe.settings()[name].value(name, getattr(arguments, name))
        for name in (
            "dataset",
            "text_columns",
            "label_column",
            "max_validation_rows",
            "max_drop",
            "baseline",
        )
    }
    found = evaluate(
        arguments.folder,
        data_dir=arguments.data_dir,
        validation_file=arguments.validation_file,
        validation_split=arguments.validation_split,
        metric=named_function(arguments.metric),
        **given,
    )
    drop = Drop(**found["drop"]) if "drop" in found else None
    if arguments.json:
        say_json(found)
        return code_of(drop)
    for split, rows in found["rows"].items():
        say(split, counted(rows, "row"), separator="\t")
    for name, value in {**found["metrics"], "score": found["score"]}.items():
        say(name, f"{value:.4f}", separator="\t")
    if drop is not None:
        say(f"points {drop.side} the baseline", f"{abs(drop.points):.2f}", separator="\t")
        say("standard error", f"{drop.standard_error:.2f}", separator="\t")
    return code_of(drop)
