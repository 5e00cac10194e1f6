"""Whether the fused encoder of a packed model says what its own layers say, on sentences of a file.

    python -m bench.studies.agreement DIR FILE [--threads N] [--smallest] [--out DIR]

DIR holds a packed model, FILE labelled sentences. Each row compares two ways of running the model: how many sentences
get another class, and by how much the logits differ (the Euclidean norm of the difference, over that of the second
way). Two layered ways that differ in the order of floating-point sums alone show what rounding does by itself.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.common import arguments, finish
from bench.program import run_program
from bench.sentences import Sentences, read_sentences
from bench.whole_models import folder_models
from sparseq.errors import InputError
from sparseq.nn import fused_reason, use_fused_encoder
from sparseq_kernels.cpu.encoder import why_no_bf16_attention

FUSED, LAYERED, EAGER = "fused", "layer by layer", "layer by layer, attention 'eager'"
BF16 = "fused, attention in bf16"


def ways(model: nn.Module) -> dict[str, Callable[[], object]]:
    """What sets the model up for each way of running it."""

    def set_up(on: bool, attention: str, bf16: bool | None = False) -> Callable[[], object]:
        def run() -> object:
            model.set_attn_implementation(attention)  # type: ignore[operator]
            return use_fused_encoder(model, on, bf16_attention=bf16)

        return run

    found = {FUSED: set_up(True, "sdpa"), LAYERED: set_up(False, "sdpa"), EAGER: set_up(False, "eager")}
    return found | ({BF16: set_up(True, "sdpa", True)} if why_no_bf16_attention() is None else {})


def logits_of(model: nn.Module, sentences: Sentences) -> Tensor:
    with torch.inference_mode():
        return torch.cat([model(**batch).logits for batch in sentences.workload().batches])


def row(name: str, other: str, logits: dict[str, Tensor], sentences: Sentences) -> dict[str, Any]:
    a, b = logits[name], logits[other]
    changed, distance = int((a.argmax(1) != b.argmax(1)).sum()), float((a - b).norm() / b.norm())
    scores = {way: sentences.score(logits[way]) for way in (name, other)}
    cells = {
        "one way": name,
        "beside": other,
        "sentences": str(len(a)),
        "of another class": str(changed),
        "logits": f"{distance:.1e}",
        "scores": " / ".join(f"{score:.2%}" for score in scores.values()),
    }
    print("  ".join(cells.values()), flush=True)
    return {
        "case": {"way": name, "beside": other},
        "changed": changed,
        "distance": distance,
        "scores": scores,
        "cells": cells,
    }


def _own(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="DIR", help="what sparseq.save, or sparseq compress, wrote")
    parser.add_argument("sentences", type=Path, metavar="FILE", help="labelled sentences")


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("Fused and layered predictions of a packed model.", 1, argv, _own)
    [model] = folder_models([given.model]).values()
    if (reason := fused_reason(model, of_model=True)) is not None:
        raise InputError(f"{given.model} does not run fused: {reason}")
    sentences = read_sentences(given.sentences, given.model, model=given.model)
    if sentences.labels is None:
        raise InputError(f"{given.sentences} has no labels to score")
    logits = {}
    for name, set_up in ways(model).items():
        set_up()
        logits[name] = logits_of(model, sentences)
    pairs = [(FUSED, LAYERED), (EAGER, LAYERED), *([(BF16, FUSED)] if BF16 in logits else [])]
    rows = [row(name, other, logits, sentences) for name, other in pairs]
    finish("agreement", rows, {"sentences": given.sentences.name, "model": given.model.name}, given)
    return 0


if __name__ == "__main__":
    run_program(main)
