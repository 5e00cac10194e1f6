"""`sparseq size`."""

import argparse

import sparseq
from sparseq.terminal import write

HELP = "count what the model in a folder weighs, layer by layer"
EXAMPLES = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder."""
    parser.add_argument("folder", metavar="DIR", help="a folder that `sparseq compress` has written")


def run(arguments: argparse.Namespace) -> int:
    write(f"{sparseq.size_report(sparseq.load(arguments.folder))}\n")
    return 0
