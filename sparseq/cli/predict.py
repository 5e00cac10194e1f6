"""`sparseq predict`."""

import argparse
import sys

from sparseq.errors import InputError
from sparseq.terminal import say
from sparseq_kernels.untrusted import quoted

HELP = "label texts with the model in a finished run's folder"
EXAMPLES = """\
examples:
  sparseq predict runs/student "a charming, funny film"
  sparseq predict runs/pairs "How old are you?" --text-pair "What is your age?"
  sparseq predict runs/student < texts.txt          one text a line; the parts of a pair separated by a tab"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, and texts."""
    parser.add_argument("folder", metavar="DIR", help="a folder that `sparseq compress` has written")
    parser.add_argument("text", nargs="*", help="texts; without any, they are read from stdin, one a line")
    parser.add_argument("--text-pair", metavar="TEXT", help="the second text, for tasks on pairs")


def run(arguments: argparse.Namespace) -> int:
    from sparseq.train import predict

    if arguments.text:
        pair = (arguments.text_pair,) if arguments.text_pair is not None else ()
        if pair and len(arguments.text) > 1:
            raise InputError(
                "--text-pair goes with one text; give several pairs on stdin, the parts separated by a tab"
            )
        texts = [(text, *pair) for text in arguments.text]
    else:
        if sys.stdin is None:
            raise InputError("there is no stdin to read texts from: give them as arguments")
        if sys.stdin.isatty():
            say("reading texts from the terminal, one a line; end with Ctrl-D", error=True)
        try:
            texts = [tuple(line.rstrip("\r\n").split("\t")) for line in sys.stdin if line.strip()]
        except UnicodeDecodeError as error:
            raise InputError(f"stdin is not {error.encoding} text: give the texts in that encoding") from error
    for text in texts:
        if any("\ud800" <= character <= "\udfff" for part in text for character in part):
            raise InputError(f"the text {quoted(text)} is not valid Unicode: give it as UTF-8")
    for found in predict(arguments.folder, texts):
        say(found.label, f"{found.value:.4f}", *found.text, separator="\t")
    return 0
