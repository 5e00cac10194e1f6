"""`sparseq size`."""

import argparse

import sparseq
from sparseq.extras import require
from sparseq.terminal import say_json, write

EXTRA = "hf"
HELP = "print the size of the model in a folder, layer by layer"
EXAMPLES = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, and the form of the output."""
    parser.add_argument("folder", metavar="DIR", help="a folder that `sparseq compress` has written")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object: the totals, and each layer's numbers"
    )


def run(arguments: argparse.Namespace) -> int:
    require(EXTRA)
    report = sparseq.size_report(sparseq.load(arguments.folder))
    if arguments.json:
        say_json(report.as_dict())
    else:
        write(f"{report}\n")
    return 0
