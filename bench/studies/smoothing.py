"""What post-training quantization loses, and what smoothing (SmoothQuant) and fitted weight scales bring back.

    python -m bench.studies.smoothing --model M --data-dir GLUE

A model fine-tuned on SST-2, quantized without training; static ranges are averages over four batches of `train.tsv`,
or of texts of random tokens. "attention's outputs" is what `sparseq.nn.smooth` does. The other places are tried by an
explicit division of the layers' inputs, which `sparseq` does not have: the inputs of query, key and value ("qkv"), of
the intermediate layer ("intermediate") and of the output layer ("output"), whose factors the weights take up. Signal to
quantization noise of the last hidden states beside the model in fp32, on other rows of that file.
"""

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from bench.common import arguments, finish
from bench.program import run_program
from bench.studies.calibration import BATCH, BATCHES, ROWS, hidden_states, load, options
from bench.studies.rows import batch_of, read_rows, split
from sparseq import calibrate, convert
from sparseq.nn import fit_weight_scales, smooth
from sparseq.train.calibrating import random_texts

Batches = Sequence[dict[str, Tensor]]
LENGTH = 64
# (bits, activation, weight scale, batches, alpha of attention's outputs, alphas of explicit factors by place)
CASES: tuple[tuple[int, str, str, str, float | None, dict[str, float]], ...] = (
    (8, "dynamic", "max", "", None, {}),
    (8, "dynamic", "max", "rows", 0.5, {}),
    (8, "static", "max", "rows", None, {}),
    (8, "static", "max", "random", None, {}),
    (8, "static", "max", "rows", 0.5, {}),
    (8, "static", "max", "rows", None, {"qkv": 0.5, "intermediate": 0.5}),
    (8, "static", "max", "rows", None, {"qkv": 0.7, "intermediate": 0.7}),
    (8, "static", "max", "rows", None, {"output": 0.5}),
    (8, "static", "max", "rows", None, {"output": 0.8}),
    (8, "static", "max", "rows", 0.5, {"qkv": 0.7, "intermediate": 0.7, "output": 0.8}),
    (4, "dynamic", "max", "", None, {}),
    (4, "dynamic", "lsq", "", None, {}),
    (4, "dynamic", "lsq", "rows", 0.5, {}),
    (4, "dynamic", "lsq", "rows", None, {"qkv": 0.5, "intermediate": 0.5, "output": 0.5}),
)
PLACES = {
    "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "intermediate": ("intermediate.dense",),
    "output": ("output.dense",),
}


@torch.no_grad()
def divide_inputs(model: Any, batches: Batches, alphas: Mapping[str, float]) -> None:
    """Divides the inputs of layers by the factors of Xiao et al. (2023), and multiplies their weights' columns."""
    groups = {
        f"{number} {place}": ([block.get_submodule(name) for name in PLACES[place]], alpha)
        for number, block in enumerate(model.base_model.encoder.layer)
        for place, alpha in alphas.items()
    }
    largest: dict[str, Tensor] = {}

    def observe(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor]) -> None:
            found = inputs[0].abs().flatten(0, -2).amax(0)
            largest[name] = torch.maximum(largest.get(name, found), found)

        return hook

    hooks = [layers[0].register_forward_pre_hook(observe(name)) for name, (layers, _) in groups.items()]
    for batch in batches:
        model(**batch)
    for handle in hooks:
        handle.remove()
    for name, (layers, alpha) in groups.items():
        columns = torch.stack([layer.weight.abs().amax(0) for layer in layers]).amax(0)
        factor = (largest[name] ** alpha / columns ** (1 - alpha)).clamp_min(1e-5)
        for layer in layers:
            layer.weight.mul_(factor)
            layer.register_forward_pre_hook(lambda _, inputs, factor=factor: (inputs[0] / factor, *inputs[1:]))


def quantized(plain: nn.Module, case: tuple[Any, ...], batches: Mapping[str, Batches]) -> nn.Module:
    bits, activation, scale, source, alpha, factors = case
    model = deepcopy(plain)
    if factors:
        divide_inputs(model, batches[source], factors)
    convert(model, bits=bits, activation=activation, scale=scale)
    model.eval()
    if alpha is not None:
        smooth(model, batches[source], alpha)
    if scale == "lsq":
        fit_weight_scales(model)
    if activation == "static":
        calibrate(model, batches[source], method="average")
    return model


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("Smoothing and fitted scales without training.", 1, argv, options)
    rows = 32 if given.smallest else ROWS
    train, held_out = split(
        given.data_dir / "SST-2" / "train.tsv", given.runs.resolve() / f"data-{rows}", rows, rows, 0
    )
    plain, tokenizer = load(given.model)
    texts = random_texts(tokenizer, BATCH * BATCHES, LENGTH, ("text_a",), 0)["text_a"][:]
    ids = tokenizer(texts, truncation=True, max_length=LENGTH)["input_ids"]
    calibration, random, others = (
        [batch_of(part[i : i + BATCH], tokenizer) for i in range(0, len(part), BATCH)]
        for part in (read_rows(train, tokenizer), [(one, 0) for one in ids], read_rows(held_out, tokenizer))
    )
    for batch in (*calibration, *random, *others):
        del batch["labels"]
    batches = {"rows": calibration[:BATCHES], "random": random}
    exact, found = hidden_states(plain, others), []
    for case in CASES:
        bits, activation, scale, source, alpha, factors = case
        noise = hidden_states(quantized(plain, case, batches), others) - exact
        decibels = 10 * math.log10((exact.square().sum() / noise.square().sum()).item())
        cells = {
            "bits": str(bits),
            "activations": activation,
            "weight scales": "least error" if scale == "lsq" else "max",
            "calibrated on": source if activation == "static" else "",
            "attention's outputs": "" if alpha is None else f"{alpha:g}",
            "explicit factors": ", ".join(f"{place} {value:g}" for place, value in factors.items()),
            "dB": f"{decibels:.1f}",
        }
        found.append({"case": {"number": str(len(found))}, "sqnr_db": decibels, "cells": cells})
        print(cells, flush=True)
    finish("smoothing", found, {"batches": BATCHES, "batch": BATCH, "rows": rows, "random_length": LENGTH}, given)
    return 0


if __name__ == "__main__":
    run_program(main)
