"""How evenly each scope prunes a pretrained model's layers: the least and the most that a layer loses.

    python -m bench.studies.layer_sparsity --model M

Nothing is trained: the masks are those that the weights have as they are.
"""

import argparse
from collections.abc import Sequence

from bench.common import arguments, finish
from bench.program import run_program
from sparseq import convert
from sparseq.models import load_model
from sparseq.nn import prunable
from sparseq.nn.selection import MAX_LAYER_SPARSITY, select_masks
from sparseq.train.advice import NEARLY_REMOVED

KEPT = (0, 2, 4)
SCOPES = (("global", 1.0), ("global", MAX_LAYER_SPARSITY), ("lamp", MAX_LAYER_SPARSITY))


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="the pretrained model")


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("What each layer loses.", 1, argv, options)
    kept = KEPT[:1] if given.smallest else KEPT
    model, _ = load_model(given.model, layers=kept, num_labels=2, label_names=None, regression=False)
    weights = {name: layer.weight for name, layer in prunable(convert(model, bits=None)).items()}
    rows = []
    for pattern in ("4x4", "unstructured"):
        for sparsity in (0.6, 0.8):
            for scope, limit in SCOPES:
                masks = select_masks(weights, sparsity, pattern, scope, limit)
                shares = sorted(1 - mask.float().mean().item() for mask in masks.values())
                past = sum(share > NEARLY_REMOVED for share in shares)
                cells = {
                    "pattern": pattern,
                    "sparsity": f"{sparsity:.0%}",
                    "scope": f"{scope}, at most {limit:.0%} of a layer",
                    "least, %": f"{100 * shares[0]:.1f}",
                    "most, %": f"{100 * shares[-1]:.1f}",
                    f"layers past {NEARLY_REMOVED:.0%}": f"{past} of {len(shares)}",
                }
                case = {"pattern": pattern, "sparsity": sparsity, "scope": scope, "max_layer_sparsity": limit}
                rows.append({"case": case, "shares": shares, "cells": cells})
                print(cells, flush=True)
    finish("layer_sparsity", rows, {"layers": len(kept)}, given)
    return 0


if __name__ == "__main__":
    run_program(main)
