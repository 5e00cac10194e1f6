"""`sparseq export`."""

import argparse
import dataclasses

from sparseq.extras import require
from sparseq.terminal import say, say_json

EXTRA = "train"
HELP = "write the model of a finished run as an ONNX file of integer products"
EXAMPLES = """\
examples:
  sparseq export runs/student --out exported/model.onnx
  sparseq export runs/student --form qdq --calibration-rows 512 --out exported/qdq.onnx
  sparseq evaluate exported/model.onnx

The tokenizer and config.json are written beside the file. It needs pip install 'sparseq[train,onnx]'."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, the file and its form."""
    parser.add_argument("folder", metavar="DIR", help="a folder that `sparseq compress` has written")
    parser.add_argument("--out", metavar="FILE", required=True, help="the file to write, which ends in .onnx")
    parser.add_argument("--form", metavar="{integer,qdq}", default="integer",
                        help="integer: computes as sparseq does, for ONNX Runtime; qdq: pairs of QuantizeLinear and "
                        "DequantizeLinear, which OpenVINO and others run in int8 (default: integer)")  # fmt: skip
    parser.add_argument("--calibration-rows", metavar="N", help="with qdq and a run of dynamic activations: find a "
                        "scale for each layer from so many training rows")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    for extra in (EXTRA, "onnx"):
        require(extra)
    from sparseq.paths import expanded
    from sparseq.train.exporting import export
    from sparseq.train.recipe import Recipe

    rows = arguments.calibration_rows
    if rows is not None:
        rows = Recipe.settings()["calibration_rows"].value("calibration_rows", rows)
    found = export(arguments.folder, expanded(arguments.out), arguments.form, calibration_rows=rows)
    if arguments.json:
        say_json({**dataclasses.asdict(found), "path": str(found.path)})
        return 0
    say(found.path, f"{found.bytes / 1e6:.2f} MB", separator="\t")
    say("form", found.form, separator="\t")
    say("integer products", found.integer_products, separator="\t")
    return 0
