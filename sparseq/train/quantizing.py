"""How a recipe's settings of quantization go together, and what older recipes meant by them."""

from collections.abc import Mapping
from typing import Any, Protocol

from sparseq.errors import InputError
from sparseq.terminal import counted

CALIBRATION_ROWS = 256
"""Rows that static ranges are found from, unless a recipe says otherwise: 8 batches of 32."""

# Before there was `calibration_rows`.
_FORMER_BATCHES = 8


class Settings(Protocol):
    """What is looked at of a `Recipe`, which is built on this module."""

    @property
    def bits(self) -> int: ...
    @property
    def activation(self) -> str: ...
    @property
    def scale(self) -> str: ...
    @property
    def calibration(self) -> str: ...
    @property
    def calibration_rows(self) -> int: ...
    @property
    def calibration_data(self) -> str: ...
    @property
    def qat_start(self) -> int: ...
    @property
    def smooth(self) -> float | None: ...
    @property
    def epochs(self) -> float: ...

    def uses(self, method: str) -> bool: ...


def check_quantization(recipe: Settings) -> None:
    """Raises InputError for settings of qat and ptq that contradict each other, and for no training without ptq."""
    qat, ptq = recipe.uses("qat"), recipe.uses("ptq")
    if qat and ptq:
        raise InputError(
            "qat quantizes during training and ptq after it: give one of them in --methods, with any of the others"
        )
    if ptq and recipe.scale == "lsq":
        raise InputError("--scale lsq learns weight scales in training, which ptq does not do: give max or mse")
    if qat and recipe.scale == "mse":
        raise InputError(
            "--scale mse fits scales to weights that no longer change: give --scale lsq, or ptq instead of qat"
        )
    if ptq and recipe.qat_start:
        raise InputError("--qat-start is a step of qat, and ptq quantizes after the last step: leave it out")
    if recipe.smooth is not None and not ptq:
        raise InputError("--smooth belongs to ptq: add it to --methods, in the place of qat, or leave --smooth out")
    if recipe.epochs:
        return
    if not ptq:
        raise InputError("--epochs wants a number above 0, not '0': only with ptq a run may leave training out")
    if recipe.uses("kd"):
        raise InputError("--epochs 0 trains nothing, so that kd has nothing to do: leave one of them out")


def described_quantization(recipe: Settings, widths: str, rows: int, layers: int, smoothed: int) -> list[str]:
    """What is quantized, when, and what ranges come from.

    widths: how many bits, in words. rows: of the training data. layers: how many are quantized. smoothed: in how many
    `smooth` would move ranges.
    """
    when = ", after the last step" if recipe.uses("ptq") else ""
    if recipe.uses("qat") and recipe.qat_start:
        when = f", from step {recipe.qat_start} on"
    if not recipe.epochs:
        when = ", at once"
    told = [f"{counted(layers, 'layer')} to {widths}{when}: linear layers and embeddings"]
    if recipe.scale == "mse":
        told.append("weight scales of linear layers by the least squared error")
    source = f"{min(rows, recipe.calibration_rows):,} training rows"
    if recipe.calibration_data == "random":
        source = f"{recipe.calibration_rows:,} texts of random tokens"
    if recipe.smooth is not None:
        told.append(f"{counted(smoothed, 'attention output')} smoothed by {recipe.smooth:g}")
    if recipe.activation == "static":
        told.append(f"static ranges by {recipe.calibration}")
    elif recipe.uses("ptq") and recipe.smooth is None:
        return [*told, "a scale for each token, found at run time: no calibration"]
    if recipe.activation == "static" or recipe.smooth is not None:
        told[-1] += f", from {source}"
    return told


def former_calibration_rows(values: Mapping[str, Any]) -> int:
    """The `calibration_rows` of a run whose recipe was written before there were any.

    values: the recipe's. Without static ranges nothing was calibrated, and the number has no meaning.
    """
    size = values.get("batch_size")
    static = "qat" in values.get("methods", ()) and values.get("activation") == "static"
    return _FORMER_BATCHES * size if static and isinstance(size, int) else CALIBRATION_ROWS
