"""Rows of 4 bits beside rows of 8 bits in the embeddings of a fused encoder on a CPU: time of the whole encoder.

python -m bench.studies.embeddings [--threads N] [--smallest] [--out DIR]
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.check import WrongResultError
from bench.common import arguments, finish
from bench.program import run_program
from sparseq import convert, pack
from sparseq.nn import fused_way
from sparseq.timing import alternate

HIDDEN, LAYERS, HEADS, FEED_FORWARD = 384, 6, 12, 1536  # MiniLM-L6
SHAPES = ((1, 16), (1, 128), (8, 128))  # (sentences, tokens)
BITS = (8, 4)


def make_model(bits: int, small: bool) -> nn.Module:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = (1, 32, 2, 64) if small else (LAYERS, HIDDEN, HEADS, FEED_FORWARD)
    names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
    plain = BertModel(BertConfig(**dict(zip(names, sizes, strict=True))), add_pooling_layer=False)
    return pack(convert(plain.eval(), embedding_bits=bits))


def call(model: nn.Module, ids: Tensor) -> Callable[[], object]:
    def run() -> object:
        return model(ids)

    if (way := fused_way(model, input_ids=ids)).name != "one call":
        raise WrongResultError(f"the model does not run in one call of native code: {way}")
    return run


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("Embeddings of 4 bits beside 8 in a fused encoder, in ms.", 41, argv)
    models = {bits: make_model(bits, given.smallest) for bits in BITS}
    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        for batch, tokens in [(2, 4)] if given.smallest else SHAPES:
            config: Any = models[8].config
            ids = torch.randint(0, config.vocab_size, (batch, tokens))
            timed = alternate({f"{bits} bits": call(model, ids) for bits, model in models.items()}, given.rounds)
            ratio = timed.ratio("4 bits", "8 bits")
            cells = {
                "sentences x tokens": f"{batch} x {tokens}",
                **{name: f"{1e3 * timed.time(name).median:.2f}" for name in timed.samples},
                "4 bits / 8 bits": str(ratio),
            }
            rows.append(
                {"case": {"batch": batch, "tokens": tokens}, **timed.as_dict([("4 bits", "8 bits")]), "cells": cells}
            )
            print(cells, flush=True)
    finish("embeddings", rows, {"model": "MiniLM-L6's sizes"}, given)
    return 0


if __name__ == "__main__":
    run_program(main)
