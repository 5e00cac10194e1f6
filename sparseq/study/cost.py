"""What a study will take: seconds and bytes of each cell, estimated before anything is trained."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import torch

from sparseq.errors import InputError
from sparseq.models import SIZES, count
from sparseq.paths import expanded
from sparseq.tasks import Data
from sparseq.train.prepare import read_data
from sparseq.train.recipe import DATA, Recipe

from .cells import Cell

# Loading, saving and scoring of a small model.
OVERHEAD = 10.0
# Guessed: the part of the rate of a large matrix product that training reaches. Finished cells say what it is.
REACHED = 0.4
# Bytes of a checkpoint for each parameter: the weight and AdamW's two moments in fp32. Two are kept.
CHECKPOINTS = 2 * 12
_CHARACTERS = 4.5  # of an English token, with the space before it


@dataclass(frozen=True)
class Cost:
    """seconds: of the run. disk: bytes of its folder. Either is None if it is not known."""

    seconds: float | None
    disk: int | None


class Costs:
    """Estimates the cells of a study.

    The rate of this machine is that of the finished cells, given as (cell, seconds); without any it is a share of the
    rate of a matrix product, which is measured.
    """

    def __init__(self, cells: Sequence[Cell], finished: Sequence[tuple[Cell, float]] = ()) -> None:
        self._cells = {cell.name: cell for cell in cells}
        self._texts: dict[str, tuple[int, float]] = {}
        self._configs: dict[str, Any] = {}
        done = [(work, seconds) for cell, seconds in finished if (work := self._work(cell)) and seconds > OVERHEAD]
        self.is_measured = bool(done)
        self._rate = median(work / (seconds - OVERHEAD) for work, seconds in done) if done else REACHED * _peak()

    def of(self, cell: Cell) -> Cost:
        """The estimate for one cell."""
        work, parameters = self._work(cell), self._parameters(cell)
        return Cost(
            None if work is None else OVERHEAD + work / self._rate,
            None if parameters is None else _stored(cell.recipe, *parameters),
        )

    def checkpoints(self, cells: Sequence[Cell], jobs: int) -> int:
        """Bytes that the checkpoints of running cells take at most."""
        sizes = [sum(found) for cell in cells if (found := self._parameters(cell)) is not None]
        return CHECKPOINTS * sum(sorted(sizes)[-jobs:])

    def _work(self, cell: Cell) -> float | None:
        """Floating-point operations of the training: 6 for each encoder weight and token, of the teacher 2."""
        parameters = self._parameters(cell)
        if parameters is None:
            return None
        recipe = cell.recipe
        rows, tokens = self._rows(recipe)
        rows *= 1 + recipe.augment_copies
        work = 6 * parameters[0] * recipe.epochs * rows * tokens
        taught = self._cells.get(cell.taught_by or "")
        theirs = self._parameters(taught) if taught else None
        if theirs is not None:
            work += 2 * theirs[0] * rows * tokens * (recipe.epochs if recipe.hidden_loss else 1)
        return work

    def _parameters(self, cell: Cell) -> tuple[int, int] | None:
        """(weights of the encoder's linear layers, all other parameters); None if the model is not on this machine."""
        start, layers = cell, cell.recipe.layers
        while start.starts_from is not None:
            start = self._cells[start.starts_from]
            layers = start.recipe.layers if layers is None else layers
        model = str(start.recipe.model)
        if model not in self._configs:
            self._configs[model] = _config(model)
        config = self._configs[model]
        if config is None:
            return None
        counts = count(config)
        encoder = counts.encoder_linear_weights
        others = counts.total - encoder
        if layers is not None:
            kept = layers if isinstance(layers, int) else len(layers)
            encoder = encoder * kept // _layers(config)
        return encoder, others

    def _rows(self, recipe: Recipe) -> tuple[int, float]:
        """(training rows, mean number of tokens), from the data itself, read once for each task."""
        names = [name for name, one in Recipe.settings().items() if one.group == DATA and name != "max_length"]
        key = repr([getattr(recipe, name) for name in names])
        if key not in self._texts:
            data = read_data(recipe)
            assert data.train is not None
            self._texts[key] = len(data.train), _characters(data) / _CHARACTERS + 2
        rows, tokens = self._texts[key]
        return rows, min(tokens, float(recipe.max_length))


def _stored(recipe: Recipe, encoder: int, others: int) -> int:
    """Bytes of the packed model; others: mostly embeddings. With the whole vocabulary, so at most."""
    kept = 1 - recipe.sparsity if recipe.uses("mp") else 1.0
    width = recipe.bits / 8 if recipe.quantizes else 4.0
    of_others = (recipe.width_of_embeddings or 32) / 8
    return int(width * encoder * kept + of_others * others)


def _characters(data: Data) -> float:
    assert data.train is not None
    sample = data.train.select(range(min(1000, len(data.train))))
    columns = [name for name in ("text_a", "text_b") if name in sample.column_names]
    return sum(len(text) for name in columns for text in sample[name]) / max(1, len(sample))


def _config(model: str) -> Any:
    """The model's configuration, if it is BERT's and on this machine."""
    from transformers import AutoConfig

    if model in SIZES and not os.path.isdir(expanded(model)):
        return SIZES[model]
    try:
        config = AutoConfig.from_pretrained(model, local_files_only=True, trust_remote_code=False)
        count(config)
        return config
    except (OSError, ValueError, InputError):
        return None


def _layers(config: Any) -> int:
    return int(config.layers if hasattr(config, "layers") else config.num_hidden_layers)


def _peak() -> float:
    """Floating-point operations a second of a product of matrices, fp32."""
    one, taken = torch.ones(768, 768), []
    for _ in range(20):  # the shortest, as other processes may use the machine too
        start = perf_counter()
        one @ one
        taken.append(perf_counter() - start)
    return 2 * 768**3 / min(taken)


def total(costs: Mapping[str, Cost]) -> tuple[float, int, int]:
    """(seconds, bytes, how many cells are not known) of several cells, without those that are not known."""
    seconds = sum(cost.seconds or 0.0 for cost in costs.values())
    disk = sum(cost.disk or 0 for cost in costs.values())
    return seconds, disk, sum(cost.seconds is None or cost.disk is None for cost in costs.values())
