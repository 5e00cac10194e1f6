"""How much synonym augmentation replaces of SST-2's training sentences, and how fast.

    python -m bench.studies.augmentation --data-dir GLUE [--rates 0.15,0.3] [--wordnet DIR]

One copy of each row. Whether a replacement is good only a reader can tell.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from bench.common import arguments, finish
from bench.program import run_program
from sparseq.augment import SynonymAugmenter, augment_dataset, wordnet_dir
from sparseq.augment.finding import load_wordnet
from sparseq.tasks import load_data

SMALLEST = 2000


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data-dir", type=Path, required=True, help="folder in the classic GLUE layout")
    parser.add_argument("--wordnet", type=Path, help="folder of WordNet; fetched if not given")
    parser.add_argument("--rates", default="0.15,0.3", help="shares of the words to ask for, separated by commas")
    parser.add_argument("--seed", type=int, default=4242, help="of the copies")


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("Synonym augmentation of SST-2.", 1, argv, options)
    data = load_data("sst2", data_dir=given.data_dir, max_train_rows=SMALLEST if given.smallest else None)
    assert data.train is not None
    wordnet = load_wordnet(given.wordnet or wordnet_dir())
    found = []
    for rate in map(float, given.rates.split(",")):
        augmenter = SynonymAugmenter(wordnet, rate=rate, seed=given.seed)
        began = time.process_time()
        made = augment_dataset(data.train, augmenter)
        seconds = time.process_time() - began
        cells = {
            "asked, %": f"{100 * rate:g}",
            "replaced, %": f"{100 * made.stats.rate:.2f}",
            "words": f"{made.stats.words:,}",
            "rows with a copy, %": f"{100 * made.stats.copies / len(data.train):.1f}",
            "rows a second": f"{len(data.train) / seconds:,.0f}",
        }
        found.append({"case": {"rate": rate}, "stats": made.stats.as_dict(), "seconds": seconds, "cells": cells})
        print(cells, flush=True)
    finish("augmentation", found, {"rows": len(data.train), "seed": given.seed}, given)
    return 0


if __name__ == "__main__":
    run_program(main)
