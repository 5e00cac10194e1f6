"""Tasks: GLUE's nine and the user's own; reading their rows, and scoring models on them."""

from sparseq.tasks.data import Data, Source
from sparseq.tasks.load import load_data
from sparseq.tasks.metrics import compute_metrics, merge_splits, score
from sparseq.tasks.spec import CUSTOM, GLUE, Task, get_task

__all__ = [
    "CUSTOM", "GLUE", "Data", "Source", "Task", "compute_metrics", "get_task", "load_data", "merge_splits", "score",
]  # fmt: skip
