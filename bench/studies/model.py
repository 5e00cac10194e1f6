"""Whole models' latency, milliseconds a batch: plain, packed, packed and sparse, and peers, alternately in one process.

    python -m bench.studies.model --peers                       a random MiniLM-shaped model, and other runtimes
    python -m bench.studies.model runs/teacher runs/student     folders

Of folders, the first is the baseline, and the one that other runtimes run. Each sample comes after a rest, and after
calls of its own candidate that do not count.
"""

import argparse
import copy
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sparseq
from bench.check import require_close
from bench.common import arguments, finish
from bench.program import run_program
from bench.runtimes import CALIBRATION_ROWS, Runner, peers
from sparseq.checkpoint import is_saved
from sparseq.errors import InputError
from sparseq.nn import Packed, named_layers, use_fused_encoder
from sparseq.timing import alternate

LAYERS, HIDDEN, HEADS, FEED_FORWARD, VOCABULARY = 6, 384, 12, 1536, 30522  # MiniLM-L6
SHAPES = ((1, 16), (1, 128), (8, 128), (32, 32))  # (sentences, tokens)
TOLERANCE = 2e-2
SPARSITIES, PATTERN = (0.5, 0.8, 0.9), "4x4"
SETTLE = 0.1  # seconds


def random_models(small: bool) -> dict[str, nn.Module]:
    """A random classifier, the same packed to int8, layer by layer and fused, and packed without most 4x4 blocks."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    shape = (1, 32, 2, 64, 100) if small else (LAYERS, HIDDEN, HEADS, FEED_FORWARD, VOCABULARY)
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
    plain = BertForSequenceClassification(BertConfig(**dict(zip(names, shape, strict=True)))).eval()

    def packed(**settings: Any) -> nn.Module:
        return sparseq.pack(sparseq.convert(copy.deepcopy(plain), **settings))

    return {
        "torch, fp32": plain,
        "sparseq int8, layer by layer": use_fused_encoder(packed(), False),
        "sparseq int8": packed(),
        **{
            f"sparseq int8, {share:.0%} of {PATTERN} blocks removed": packed(sparsity=share, pattern=PATTERN)
            for share in SPARSITIES
        },
    }


def folder_models(folders: Sequence[Path]) -> dict[str, nn.Module]:
    """The models of folders, by the folder's name: what `sparseq.save` wrote, or any transformers classifier."""
    from transformers import AutoModelForSequenceClassification

    models: dict[str, nn.Module] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}: give the folders of models to time")
        name = folder.name if folder.name not in models else str(folder)
        if is_saved(folder):
            models[name] = sparseq.load(folder)
        else:
            models[name] = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
    return models


def make_batch(models: Mapping[str, nn.Module], batch: int, tokens: int, seed: int = 0) -> dict[str, Tensor]:
    """Random token ids that every model knows. Which they are does not change latency."""
    vocabulary = min(int(model.config.vocab_size) for model in models.values())  # type: ignore[union-attr, arg-type]
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocabulary, (batch, tokens), generator=draw)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def check(name: str, model: nn.Module, batch: Mapping[str, Tensor]) -> None:
    """Raises WrongResult unless the model's logits are those of the reference backend."""
    with torch.inference_mode():
        found = model(**batch).logits
        with sparseq.use_backend("reference"):
            require_close(f"{name}, logits", found, model(**batch).logits, TOLERANCE)


def measure(
    models: Mapping[str, nn.Module], others: Mapping[str, Runner], batch: int, tokens: int, given: argparse.Namespace
) -> dict[str, Any]:
    held = make_batch(models, batch, tokens)
    for name, model in models.items():
        check(name, model, {key: value[:2] for key, value in held.items()})
    run = {name: functools.partial(model, **held) for name, model in models.items()}
    run |= {name: functools.partial(other, held) for name, other in others.items()}
    baseline = next(iter(run))
    with torch.inference_mode():
        times = alternate(run, given.rounds, warmup=2, settle=0.0 if given.smallest else SETTLE)
    cells = {"sentences x tokens": f"{batch} x {tokens}"}
    for name in run:
        ratio = "" if name == baseline else f", {times.ratio(name, baseline)} of {baseline}"
        cells[name] = f"{1e3 * times.time(name).median:.2f}"
        print(f"{batch} x {tokens} tokens, {name}: {cells[name]} ms{ratio}", flush=True)
    pairs = [(name, baseline) for name in run if name != baseline]
    return {"case": {"batch": batch, "tokens": tokens}, **times.as_dict(pairs), "cells": cells}


def _own(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="*", type=Path, metavar="DIR", help="models to time instead of a random one")
    parser.add_argument("--peers", action="store_true", help="time other runtimes too, where they are installed")
    parser.add_argument("--name", default="model", help="of the result file")


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("Whole models' latency a sentence, alternately.", 15, argv, _own)
    models = folder_models(given.folders) if given.folders else random_models(given.smallest)
    others: dict[str, Runner] = {}
    absent: dict[str, str] = {}
    if given.peers:
        calibration = [make_batch(models, 1, 64, seed) for seed in range(CALIBRATION_ROWS)]
        others, absent = peers(next(iter(models.values())), calibration)
    for name, reason in absent.items():
        print(f"{name}: left out, {reason}")
    shapes = [(1, 4)] if given.smallest else SHAPES
    rows = [measure(models, others, batch, tokens, given) for batch, tokens in shapes]
    reports = {name: sparseq.size_report(model) for name, model in models.items()}
    settings = {
        "models": {
            name: {
                "parameters": report.parameters,
                "stored_bytes": report.stored_bytes,
                "packed_layers": sum(isinstance(layer, Packed) for _, layer in named_layers(models[name])),
            }
            for name, report in reports.items()
        },
        "absent": absent,
    }
    finish(given.name, rows, settings, given)
    return 0


if __name__ == "__main__":
    run_program(main)
