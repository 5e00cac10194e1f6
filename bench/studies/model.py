"""Whole models' latency, milliseconds a sentence: plain, packed, and packed and sparse, alternately in one process.

    python -m bench.studies.model                               a random MiniLM-shaped model
    python -m bench.studies.model runs/teacher runs/student     folders

Of folders, the first is the baseline.
"""

import argparse
import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sparseq
from bench.check import require_close
from bench.common import arguments, finish
from sparseq.checkpoint import is_saved
from sparseq.errors import InputError
from sparseq.nn import Packed, named_layers
from sparseq.timing import time_batches

LAYERS, HIDDEN, HEADS, FEED_FORWARD, VOCABULARY = 6, 384, 12, 1536, 30522  # MiniLM-L6
BATCHES, TOKENS = (1, 32), (24, 128)
SENTENCES = 8  # that a sample passes over, or one batch if that is more
TOLERANCE = 2e-2
SPARSITY, PATTERN = 0.6, "4x4"


def random_models(small: bool) -> dict[str, nn.Module]:
    """A random classifier, the same packed to int8, and packed with 60 % of its 4x4 blocks removed."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    shape = (1, 32, 2, 64, 100) if small else (LAYERS, HIDDEN, HEADS, FEED_FORWARD, VOCABULARY)
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
    plain = BertForSequenceClassification(BertConfig(**dict(zip(names, shape, strict=True)))).eval()

    def packed(**settings: Any) -> nn.Module:
        return sparseq.pack(sparseq.convert(copy.deepcopy(plain), **settings))

    return {
        "fp32": plain,
        "packed int8": packed(),
        f"packed int8, {PATTERN} {SPARSITY:.0%}": packed(sparsity=SPARSITY, pattern=PATTERN),
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


def make_batches(models: Mapping[str, nn.Module], batch: int, tokens: int) -> list[dict[str, Tensor]]:
    """Random token ids that every model knows, SENTENCES or one batch. Which they are does not change latency."""
    vocabulary = min(int(model.config.vocab_size) for model in models.values())  # type: ignore[union-attr, arg-type]
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (max(SENTENCES, batch), tokens), generator=draw)
    return [{"input_ids": part, "attention_mask": torch.ones_like(part)} for part in ids.split(batch)]


def check(name: str, model: nn.Module, batch: Mapping[str, Tensor]) -> None:
    """Raises WrongResult unless the model's logits are those of the reference backend."""
    with torch.inference_mode():
        found = model(**batch).logits
        with sparseq.use_backend("reference"):
            require_close(f"{name}, logits", found, model(**batch).logits, TOLERANCE)


def measure(models: Mapping[str, nn.Module], batch: int, tokens: int, rounds: int) -> dict[str, Any]:
    batches = make_batches(models, batch, tokens)
    for name, model in models.items():
        check(name, model, {key: value[:2] for key, value in batches[0].items()})
    baseline = next(iter(models))
    pairs = [(name, baseline) for name in models if name != baseline]
    times = time_batches(models, batches, rounds, warmup=2)
    for name in models:
        ratio = "" if name == baseline else f", {times.ratio(name, baseline)} of {baseline}"
        shown = f"{1e3 * times.time(name).median:.2f} ms a sentence{ratio}"
        print(f"batch {batch}, {tokens} tokens, {name}: {shown}", flush=True)
    return {"case": {"batch": batch, "tokens": tokens}, **times.as_dict(pairs)}


def _own(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folders", nargs="*", type=Path, metavar="DIR", help="models to time instead of a random one")
    parser.add_argument("--name", default="model", help="of the result file")


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("Whole models' latency a sentence, alternately.", 15, argv, _own)
    models = folder_models(given.folders) if given.folders else random_models(given.smallest)
    cases = [(1, 4)] if given.smallest else [(batch, tokens) for tokens in TOKENS for batch in BATCHES]
    rows = [measure(models, batch, tokens, given.rounds) for batch, tokens in cases]
    reports = {name: sparseq.size_report(model) for name, model in models.items()}
    settings = {
        "models": {
            name: {
                "parameters": report.parameters,
                "stored_bytes": report.stored_bytes,
                "packed_layers": sum(isinstance(layer, Packed) for _, layer in named_layers(models[name])),
            }
            for name, report in reports.items()
        }
    }
    finish(given.name, rows, settings, given)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
