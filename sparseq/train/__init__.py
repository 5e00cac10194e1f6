"""Compression runs: `compress(Recipe(...))`, and the use of the folders that runs leave behind."""

import importlib
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from sparseq.extras import naming_extra

from .recipe import METHODS, Recipe

if TYPE_CHECKING:
    from .evaluating import evaluate
    from .figure import draw_training
    from .predicting import Prediction, predict
    from .result import RunResult
    from .run import compress

__all__ = ["METHODS", "Prediction", "Recipe", "RunResult", "compress", "draw_training", "evaluate", "predict"]

# Imported on first use: recipes and `sparseq --help` need neither transformers nor datasets.
_LATER = {
    "Prediction": "predicting",
    "draw_training": "figure",
    "evaluate": "evaluating",
    "predict": "predicting",
    "RunResult": "result",
    "compress": "run",
}
_EXTRAS = {"predicting": "hf"}  # of the others: train


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _LATER[name]
    # stdout is for results, and transformers prints there while it is imported if WANDB_MODE is offline.
    with naming_extra(_EXTRAS.get(module, "train")), redirect_stdout(sys.stderr):
        return getattr(importlib.import_module(f".{module}", __name__), name)
