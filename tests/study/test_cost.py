"""Estimates of a study's cells: sizes beside those of packed models, and times from what finished cells took."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparseq.models import load_model
from sparseq.nn import convert, pack
from sparseq.size import size_report
from sparseq.study.cells import Cell, cells_of
from sparseq.study.cost import OVERHEAD, Costs
from sparseq.study.study_file import Study

GRID = """
[[grids]]
name = "g"
methods = ["none", "qat", "qat,mp"]
sparsity = 0.5
epochs = [1, 4]
"""


@pytest.fixture
def cells(study_file: Callable[..., Path]) -> list[Cell]:
    return cells_of(Study.from_file(study_file(GRID)))


@pytest.mark.parametrize("methods, bits", [((), None), (("qat",), 8)])
def test_the_size_is_about_that_of_the_packed_model(
    cells: list[Cell], methods: tuple[str, ...], bits: Any, tiny_model_dir: Path
) -> None:
    cell = next(cell for cell in cells if cell.recipe.methods == methods and cell.size == "L2")
    model, _ = load_model(str(tiny_model_dir), num_labels=2)
    if bits:
        model = pack(convert(model, bits=bits))
    stored = size_report(model)
    tensors = stored.stored_bytes - next(layer.stored_bytes for layer in stored.layers if "header" in layer.name)
    assert Costs(cells).of(cell).disk == pytest.approx(tensors, rel=0.25)


def test_times_follow_what_finished_cells_took(cells: list[Cell]) -> None:
    """With one finished cell, every cell takes as many seconds for its work as that one did."""
    plain = {(c.size, c.recipe.epochs): c for c in cells if not c.recipe.methods}
    known = Costs(cells, [(plain["L2", 1.0], OVERHEAD + 100.0)])
    assert known.is_measured and not Costs(cells).is_measured
    assert known.of(plain["L2", 1.0]).seconds == pytest.approx(OVERHEAD + 100.0)
    assert known.of(plain["L2", 4.0]).seconds == pytest.approx(OVERHEAD + 400.0)
    assert known.of(plain["L1", 4.0]).seconds == pytest.approx(OVERHEAD + 200.0)
