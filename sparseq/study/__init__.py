"""Studies: grids of compression runs over methods, sizes, tasks and seeds, and their report."""

import importlib
from typing import TYPE_CHECKING, Any

from sparseq.extras import naming_extra

if TYPE_CHECKING:
    from .options import Options
    from .records import Latency, Record, StudyResults
    from .run import plan_study, run_study

__all__ = ["Latency", "Options", "Record", "StudyResults", "plan_study", "run_study"]

# Imported on first use, as in `sparseq.train`.
_LATER = {
    "Latency": "records",
    "Options": "options",
    "Record": "records",
    "StudyResults": "records",
    "plan_study": "run",
    "run_study": "run",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with naming_extra("train"):
        return getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
