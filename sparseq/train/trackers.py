"""Trackers that a training is reported to (`--report-to`), by the integrations of transformers."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sparseq.errors import InputError
from sparseq_kernels.untrusted import quoted

TRACKERS = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
}
"""Name -> the packages of which it needs one."""


def check_trackers(names: Sequence[str]) -> None:
    """Raises InputError for a tracker that is not one of `TRACKERS`, or whose package is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"--report-to wants any of {', '.join(TRACKERS)} by commas, or none, not {quoted(name)}")
        if not any(find_spec(package) for package in TRACKERS[name]):
            package = TRACKERS[name][0]
            raise InputError(f"--report-to {name} needs {package}, which is not installed: pip install {package}")


def keep_logs(trainer: Any, folder: Path) -> None:
    """Makes TensorBoard write into `folder`/tensorboard, unless the environment names another place.

    Its default is a folder among the checkpoints, which are removed when the run has finished.
    """
    for callback in trainer.callback_handler.callbacks:
        if type(callback).__name__ == "TensorBoardCallback" and callback.logging_dir is None:
            callback.logging_dir = str(folder / "tensorboard")
