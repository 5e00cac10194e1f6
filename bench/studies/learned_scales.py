"""How learned weight scales (`scale="lsq"`) fare under Adam: one rate for all parameters, a lower rate for the scales,
and logarithmic scales (TQT, Jain et al. 2020). Signal to quantization noise of the weights, negative scales, accuracy.

    python -m bench.studies.learned_scales --model M --data-dir GLUE [--seed 0]

Three of the model's layers, int8, on rows of SST-2's `train.tsv`; accuracy on other rows of that file.
"""

import argparse
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bench.common import arguments, write_result
from bench.program import run_program
from bench.studies.rows import HELD_OUT, ROWS, batch_of, read_rows, split
from sparseq import convert, parameter_groups
from sparseq.models import load_model
from sparseq.nn import QuantSparseLinear, linear
from sparseq_kernels.numerics import row_max, scale_from_max
from sparseq_kernels.reference.fake_quant import fake_quant

BATCH, STEPS = 8, "40,160"
METHODS = ("one rate", "rate x 0.1", "rate x 0.01", "rate x 0.001", "logarithmic")


class Exponential(nn.Module):
    """step_size = exp(parameter)."""

    def forward(self, exponent: Tensor) -> Tensor:
        return exponent.exp()

    def right_inverse(self, scale: Tensor) -> Tensor:
        return scale.log()


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="the pretrained model")
    parser.add_argument("--data-dir", type=Path, required=True, help="folder in the classic GLUE layout")
    parser.add_argument("--lr", type=float, default=3e-4, help="peak learning rate")
    parser.add_argument("--steps", default=STEPS, help="of the trainings, separated by commas")
    parser.add_argument("--seed", type=int, default=0, help="of rows, head and order")
    parser.add_argument("--methods", default=",".join(METHODS), help="what is compared, separated by commas")
    parser.add_argument("--runs", type=Path, default=Path("runs/rows"), help="folder of the rows")


def optimizer_of(model: nn.Module, method: str, lr: float) -> torch.optim.Optimizer:
    if method == "logarithmic":
        for layer in layers_of(model):
            parametrize.register_parametrization(layer, "step_size", Exponential())
        groups = parameter_groups(model, lr, 0.01, scale_lr=1.0)
    else:
        groups = parameter_groups(model, lr, 0.01, scale_lr=float(method.rpartition(" ")[2]) if "x" in method else 1.0)
    return torch.optim.AdamW(groups)


def layers_of(model: nn.Module) -> list[QuantSparseLinear]:
    return [layer for layer in model.modules() if isinstance(layer, QuantSparseLinear)]


@torch.no_grad()
def state_of(model: nn.Module) -> dict[str, float]:
    """The weights' mean SQNR over layers in dB, the share of negative scales, and how small the smallest range is
    beside its row's largest weight; scales as the optimizer left them."""
    decibels, negative, least, count = [], 0, math.inf, 0
    for layer in layers_of(model):
        weight, scale = layer.masked_weight(), layer.step_size
        assert scale is not None
        noise = weight - fake_quant(weight, scale.abs().clamp_min(1e-12).unsqueeze(-1), 8)
        decibels.append(10 * math.log10(float(weight.square().sum() / noise.square().sum())))
        negative, count = negative + int((scale <= 0).sum()), count + scale.numel()
        least = min(least, float((scale / scale_from_max(row_max(weight), 8)).min()))
    return {"sqnr_db": sum(decibels) / len(decibels), "negative": negative / count, "smallest_range": least}


@torch.no_grad()
def accuracy(model: nn.Module, rows: list[tuple[list[int], int]], tokenizer: Any) -> float:
    model.eval()
    right, ordered = 0, sorted(rows, key=lambda row: len(row[0]))
    for start in range(0, len(ordered), 64):
        batch = batch_of(ordered[start : start + 64], tokenizer)
        right += int((model(**batch).logits.argmax(-1) == batch["labels"]).sum())
    model.train()
    return right / len(ordered)


def measure(method: str, last: int, given: argparse.Namespace, train: Path, held_out: Path) -> dict[str, Any]:
    """One training of `last` steps, and what the scales are after it."""
    torch.manual_seed(given.seed)
    model, tokenizer = load_model(
        given.model, layers=(0,) if given.smallest else (0, 2, 4), num_labels=2, label_names=None, regression=False
    )
    convert(model, scale="lsq")
    optimizer = optimizer_of(model, method, given.lr)
    rows, others = read_rows(train, tokenizer), read_rows(held_out, tokenizer)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min((s + 1) / (0.1 * last + 1), (last - s) / last))
    generator, order = torch.Generator().manual_seed(given.seed), []
    model.train()
    for _ in range(last):
        if len(order) < BATCH:
            order = torch.randperm(len(rows), generator=generator).tolist()
        taken, order = order[:BATCH], order[BATCH:]
        optimizer.zero_grad()
        model(**batch_of([rows[i] for i in taken], tokenizer)).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
    state = state_of(model) | {"accuracy": accuracy(model, others, tokenizer)}
    cells = {
        "scales": method,
        "steps": str(last),
        "SQNR, dB": f"{state['sqnr_db']:.1f}",
        "negative, %": f"{100 * state['negative']:.2f}",
        "smallest range": f"{state['smallest_range']:.2f}",
        "accuracy, %": f"{100 * state['accuracy']:.1f}",
    }
    print(cells, flush=True)
    return {"case": {"scales": method, "steps": last}, **state, "cells": cells}


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("Learned scales under Adam.", 1, argv, options)
    linear.MOST_CLIPPED = math.inf  # the scales as they come, without the bound that a forward keeps
    sizes = (64, 32) if given.smallest else (ROWS, HELD_OUT)
    folder = given.runs.resolve() / f"data-{sizes[0]}-{given.seed}"
    train, held_out = split(given.data_dir / "SST-2" / "train.tsv", folder, *sizes, given.seed)
    rows: list[dict[str, Any]] = []
    trainings = [2] if given.smallest else [int(steps) for steps in given.steps.split(",")]
    for steps, method in itertools.product(trainings, given.methods.split(",")):
        rows.append(measure(method, steps, given, train, held_out))
        if not given.smallest or given.out:
            settings = {"lr": given.lr, "seed": given.seed, "batch": BATCH, "held-out rows": sizes[1], "bits": 8}
            write_result("learned_scales", rows, settings, given.out)
    return 0


if __name__ == "__main__":
    run_program(main)
