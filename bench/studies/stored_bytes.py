"""What a MiniLM-L6 classifier takes as stored, by layers, vocabulary, and the bits of embeddings and linear layers.

    python -m bench.studies.stored_bytes [--smallest] [--out DIR]

Counted by `size_report` on models of random weights, whose values do not matter to it. The smaller vocabulary has as
many tokens as `vocabulary = "seen"` leaves of BERT's for all 67,349 training rows of SST-2.
"""

from collections.abc import Sequence
from typing import Any

import torch

from bench.common import arguments, finish_counted
from bench.program import run_program
from sparseq import convert, pack
from sparseq.size import size_report

HIDDEN, HEADS, FEED_FORWARD = 384, 12, 1536  # MiniLM-L6
LAYERS, VOCABULARIES = (6, 3), {"all": 30_522, "seen": 13_486}
LINEAR = {"int8": (8, 0.0), "int8, 60 %": (8, 0.6), "int4": (4, 0.0), "int4, 60 %": (4, 0.6)}
PATTERN = "4x4"


def plain(layers: int, tokens: int) -> torch.nn.Module:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=tokens, hidden_size=HIDDEN, num_hidden_layers=layers, num_attention_heads=HEADS,
        intermediate_size=FEED_FORWARD,
    )  # fmt: skip
    return BertForSequenceClassification(config).eval()


def stored(layers: int, tokens: int, bits: int, sparsity: float, embedding_bits: int) -> int:
    """Bytes of the packed model."""
    options: dict[str, Any] = {"sparsity": sparsity, "pattern": PATTERN} if sparsity else {}
    model = convert(plain(layers, tokens), bits=bits, embedding_bits=embedding_bits, **options)
    return size_report(pack(model)).stored_bytes


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("MB stored of MiniLM-L6, by layers, vocabulary and bits.", 1, argv)
    torch.manual_seed(0)
    rows = []
    for layers in LAYERS[-1:] if given.smallest else LAYERS:
        for name, tokens in VOCABULARIES.items():
            for embedding_bits in (8, 4):
                found = {
                    linear: stored(layers, tokens, bits, sparsity, embedding_bits)
                    for linear, (bits, sparsity) in LINEAR.items()
                }
                case = {
                    "layers": str(layers),
                    "vocabulary": f"{name}, {tokens:,} tokens",
                    "embeddings": f"int{embedding_bits}",
                }
                cells = case | {linear: f"{size / 1e6:.2f}" for linear, size in found.items()}
                rows.append({"case": case, "stored_bytes": found, "cells": cells})
                print("  ".join(cells.values()), flush=True)
    checkpoint = size_report(plain(LAYERS[0], VOCABULARIES["all"])).stored_bytes
    finish_counted("stored_bytes", rows, {"pattern": PATTERN, "fp32 checkpoint, bytes": checkpoint}, given)
    return 0


if __name__ == "__main__":
    run_program(main)
