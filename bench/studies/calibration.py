"""What a static activation range should end at: `calibrate`'s methods, from usual batches and with one of outliers.

    python -m bench.studies.calibration --model M --data-dir GLUE

The pretrained model with int8 weights and static int8 activations, calibrated on four batches of SST-2's `train.tsv`;
"one outlier batch" has every layer's input twenty times as large in one batch more. Signal to quantization noise of
the last hidden states beside the model in fp32, on other rows of that file.
"""

import argparse
import math
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.common import arguments, finish
from bench.program import run_program
from bench.studies.learned_scales import layers_of
from bench.studies.rows import batch_of, read_rows, split
from sparseq import calibrate, convert
from sparseq.models import load_model
from sparseq.nn.ranges import METHODS

BATCH, BATCHES, ROWS, OUTLIER = 16, 4, 64, 20.0


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="the pretrained model")
    parser.add_argument("--data-dir", type=Path, required=True, help="folder in the classic GLUE layout")
    parser.add_argument("--runs", type=Path, default=Path("runs/rows"), help="folder of the rows")


def load(path: str) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    model, tokenizer = load_model(path, num_labels=2, label_names=None, regression=False)
    return model.eval(), tokenizer


@torch.no_grad()
def hidden_states(model: nn.Module, batches: Sequence[dict[str, Tensor]]) -> Tensor:
    """The last hidden states of all tokens that are not padding, one after another."""
    found = []
    for batch in batches:
        last = model(**batch, output_hidden_states=True).hidden_states[-1]
        found.append(last[batch["attention_mask"].bool()])
    return torch.cat(found)


def with_outliers(model: nn.Module, batches: Sequence[dict[str, Tensor]]) -> Any:
    """The batches, in the midst of them the first one again with every layer's input larger."""
    half = len(batches) // 2
    yield from batches[:half]
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs: (OUTLIER * inputs[0], *inputs[1:]))
        for layer in layers_of(model)
    ]
    yield batches[0]
    for hook in hooks:
        hook.remove()
    yield from batches[half:]


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("Methods of calibration.", 1, argv, options)
    rows = 32 if given.smallest else ROWS
    train, held_out = split(
        given.data_dir / "SST-2" / "train.tsv", given.runs.resolve() / f"data-{rows}", rows, rows, 0
    )
    plain, tokenizer = load(given.model)
    calibration, others = (
        [batch_of(part[i : i + BATCH], tokenizer) for i in range(0, len(part), BATCH)]
        for part in (read_rows(train, tokenizer), read_rows(held_out, tokenizer))
    )
    for batch in (*calibration, *others):
        del batch["labels"]
    exact = hidden_states(plain, others)
    found = []
    for method in ("dynamic", *METHODS):
        cells, values = {"range": method}, {}
        for name, outliers in (("usual batches", False), ("one outlier batch", True)):
            if method == "dynamic" and outliers:
                continue
            model = deepcopy(plain)
            convert(model, activation="dynamic" if method == "dynamic" else "static")
            if method != "dynamic":
                batches = calibration[:BATCHES]
                calibrate(model.eval(), with_outliers(model, batches) if outliers else batches, method=method)
            noise = hidden_states(model.eval(), others) - exact
            values[name] = 10 * math.log10((exact.square().sum() / noise.square().sum()).item())
            cells[f"{name}, dB"] = f"{values[name]:.1f}"
        found.append({"case": {"range": method}, "sqnr_db": values, "cells": cells})
        print(cells, flush=True)
    finish("calibration", found, {"batches": BATCHES, "batch": BATCH, "outlier": OUTLIER, "rows": rows}, given)
    return 0


if __name__ == "__main__":
    run_program(main)
