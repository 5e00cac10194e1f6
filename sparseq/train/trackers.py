"""Trackers that a training is reported to (`--report-to`): one small class for each library, which it imports.

The integrations of transformers are not used: they report some 150 settings of its trainer with absolute paths and none
of the recipe's, end before the final metrics are known, and begin a second run where a training continues.
"""

import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from sparseq.errors import InputError
from sparseq_kernels.untrusted import quoted

FINISHED, INTERRUPTED, FAILED = "FINISHED", "KILLED", "FAILED"
"""How a run ended, in MLflow's words."""

PROJECT = "sparseq"
"""Of W&B and Trackio, where the environment names no other."""


@dataclass(frozen=True)
class Start:
    """What a tracker begins with.

    name: of the run. settings: of the recipe. folder: of the run. known: the tracker's identifier of the run, if it was
    begun before and continues. told: the last step that it was told then, 0 without.
    """

    name: str
    settings: Mapping[str, Any]
    folder: Path
    known: str | None
    told: int


class Tracker(Protocol):
    """A run of a tracker. It is begun by `Tracker(start)`; run: its identifier. place: where to look at it."""

    run: str
    place: str

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers by name, after this step."""

    def result(self, values: Mapping[str, float], step: int) -> None:
        """The numbers of the finished run, which had this many steps."""

    def close(self, status: str) -> None:
        """Ends the run. status: `FINISHED`, `INTERRUPTED` or `FAILED`."""


class TensorBoard:
    """Files in `folder`/tensorboard, or where TENSORBOARD_LOGGING_DIR says."""

    def __init__(self, start: Start) -> None:
        module = "torch.utils.tensorboard" if find_spec("tensorboard") else "tensorboardX"
        folder = os.path.expanduser(os.environ.get("TENSORBOARD_LOGGING_DIR") or start.folder / "tensorboard")
        self.run, self.place = start.name, f"tensorboard --logdir {folder}"
        # Of a process that was killed there may be more than it could note.
        purge = start.told + 1 if start.known else None
        self.writer = import_module(module).SummaryWriter(folder, purge_step=purge)
        if not start.known:
            rows = "\n".join(f"| {name} | {value} |" for name, value in start.settings.items())
            self.writer.add_text("settings", f"| setting | value |\n| --- | --- |\n{rows}")

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    result = log

    def close(self, status: str) -> None:
        self.writer.close()


class WandB:
    """A run of W&B, in the project that WANDB_PROJECT names, or `PROJECT`."""

    def __init__(self, start: Start) -> None:
        wandb = import_module("wandb")
        # Its metadata would name folders of this machine; what is printed is the run's own, progress bars among it.
        quiet = {"silent": True, "console": "off", "disable_git": True, "disable_code": True, "x_disable_meta": True}
        self.own = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            name=start.name,
            id=start.known,
            resume="allow" if start.known else None,
            config=dict(start.settings),
            reinit="create_new",  # a run that the calling program has begun stays as it is
            settings=wandb.Settings(**quiet),
        )
        self.run = self.own.id
        self.place = f"run {self.run}, "
        self.place += f"offline: wandb sync {Path(self.own.dir).parent}" if self.own.offline else f"{self.own.url}"

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.own.log(dict(values), step=step)

    def result(self, values: Mapping[str, float], step: int) -> None:
        self.own.summary.update(dict(values))

    def close(self, status: str) -> None:
        self.own.finish(exit_code=int(status != FINISHED))


class MLflow:
    """A run of MLflow, in the store and the experiment that its own settings and environment variables name.

    Inside a run that the calling program has begun, it is a child of that.
    """

    def __init__(self, start: Start) -> None:
        self.mlflow = import_module("mlflow")
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # The default is the absolute path of a script.
        tags = {"mlflow.source.name": PROJECT}
        nested = self.mlflow.active_run() is not None
        run = self.mlflow.start_run(run_id=start.known, run_name=start.name, nested=nested, tags=tags)
        self.run = run.info.run_id
        self.place = f"run {run.info.run_name}, {self.run}"
        if not start.known:
            self.mlflow.log_params(dict(start.settings))

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.mlflow.log_metrics(dict(values), step=step)

    result = log

    def close(self, status: str) -> None:
        self.mlflow.end_run(status)


class Trackio:
    """A run of Trackio, in `PROJECT` or the project that TRACKIO_PROJECT names.

    Trackio finds runs by their names, so that the name gets a random end.
    """

    def __init__(self, start: Start) -> None:
        trackio = import_module("trackio")
        project = os.environ.get("TRACKIO_PROJECT") or PROJECT
        self.run = start.known or f"{start.name}-{secrets.token_hex(3)}"
        self.place = f"run {self.run}: trackio show --project {project}"
        resume = "allow" if start.known else "never"
        self.own = trackio.init(project=project, name=self.run, config=dict(start.settings), resume=resume)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.own.log(dict(values), step=step)

    result = log

    def close(self, status: str) -> None:
        self.own.finish()


TRACKERS: dict[str, tuple[type[Tracker], tuple[str, ...]]] = {
    "tensorboard": (TensorBoard, ("tensorboard", "tensorboardX")),
    "wandb": (WandB, ("wandb",)),
    "mlflow": (MLflow, ("mlflow",)),
    "trackio": (Trackio, ("trackio",)),
}
"""Name -> its class, and the packages of which it needs one."""


def check_trackers(names: Sequence[str]) -> None:
    """Raises InputError for a tracker that is not one of `TRACKERS`, or whose package is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"--report-to wants any of {', '.join(TRACKERS)} by commas, or none, not {quoted(name)}")
        if not any(find_spec(package) for package in TRACKERS[name][1]):
            package = TRACKERS[name][1][0]
            raise InputError(f"--report-to {name} needs {package}, which is not installed: pip install {package}")
