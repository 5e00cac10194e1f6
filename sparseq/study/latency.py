"""The latency of finished runs on this machine, measured alternately with their teacher in one process."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import DataCollatorWithPadding

from sparseq.nn import fused_way
from sparseq.timing import Comparison, alternate
from sparseq.train import hardware
from sparseq.train.collate import input_columns
from sparseq.train.progress import Reporter
from sparseq.train.scoring import finished, load_folder, own_rows

from .folder import StudyFolder, Timed
from .records import Latency

BATCH_SIZES = (1, 32)
SENTENCES = 32
ROUNDS = 9


def measure(
    folder: str,
    teacher: str,
    cells: Sequence[str],
    *,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    sentences: int = SENTENCES,
    rounds: int = ROUNDS,
    reporter: Reporter,
) -> None:
    """Times the teacher and the cells of the study in `folder` over validation texts, and keeps each one's latency.

    Every model is loaded as `sparseq.load` does, so packed encoders run fused, and reads the texts with its own
    tokenizer. A sample is one pass over the same `sentences` texts in batches of one size, each padded to its longest
    text; tokenizing does not count. The texts are drawn from the task's first validation split, the same for all cells
    of a task.
    """
    place = StudyFolder(folder)
    names = list(dict.fromkeys([teacher, *cells]))
    found: dict[str, dict[str, Latency]] = {name: {} for name in names}
    runs = {name: _Run(place.cell(name), sentences) for name in names}
    with reporter.phase("timing", len(batch_sizes)) as phase, torch.inference_mode():
        for size in batch_sizes:
            timed = alternate({name: run.over(size) for name, run in runs.items()}, rounds, units=runs[teacher].texts)
            for name in names:
                found[name][str(size)] = _latency(timed, name, teacher)
            phase.update()
    for name, latency in found.items():
        way = "; ".join(runs[name].ways)
        place.keep_timing(name, Timed(latency, hardware.processor(), torch.get_num_threads(), teacher, way))


class _Run:
    """A finished run's model, and the rows that it is timed on, tokenised for it.

    ways: how its encoder runs the batches that `over` was called for, each way once, in order.
    """

    def __init__(self, folder: Path, sentences: int) -> None:
        task, recipe = finished(folder)
        self.model, self.tokenizer = load_folder(folder)
        rows = own_rows(task, recipe, self.tokenizer, self.model)[0]
        chosen = np.random.default_rng(0).permutation(len(rows))[:sentences]
        self.rows = rows.select(chosen).select_columns(input_columns(rows, self.model))
        self.texts = len(self.rows)
        self.ways: dict[str, None] = {}

    def over(self, size: int) -> Callable[[], None]:
        """A pass over the rows in batches of `size`."""
        collate = DataCollatorWithPadding(self.tokenizer)
        parts = [range(start, min(start + size, self.texts)) for start in range(0, self.texts, size)]
        batches: list[Mapping[str, Any]] = [
            dict(collate([self.rows[number] for number in part]).to(hardware.device())) for part in parts
        ]
        model: nn.Module = self.model
        self.ways.update(dict.fromkeys(str(fused_way(model, **batch)) for batch in batches))

        def run() -> None:
            for batch in batches:
                model(**batch)
            if torch.cuda.is_available():
                torch.cuda.synchronize()

        return run


def _latency(timed: Comparison, name: str, teacher: str) -> Latency:
    time, ratio = timed.time(name), timed.ratio(teacher, name)
    return Latency(1e3 * time.median, 1e3 * time.low, 1e3 * time.high, ratio.median, ratio.low, ratio.high)
