"""The run's folder: which run it holds, how far that run is, and its checkpoints.

The protocol that makes a run survive being killed at any moment:
- `recipe.toml` is written first and says whose folder it is;
- `checkpoints/checkpoint-N/complete` is written after everything else in that checkpoint, and removed before anything
  else of it is; a checkpoint without it does not count and is cleared away at the next start;
- `metrics.json` is written last, when the model is packed, saved, loaded back and scored: with it the run is finished.
Each of these files appears whole or not at all.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sparseq.errors import InputError
from sparseq.paths import names_in
from sparseq.reading import brief, build, read_json

from .recipe import Recipe

RECIPE, METRICS, CHECKPOINTS, MARKER = "recipe.toml", "metrics.json", "checkpoints", "complete"
PARTIAL = ".partial"
STATE = "trainer_state.json"


def write_whole(path: Path, content: str) -> None:
    """Writes a text file so that it is there whole or not at all, whenever the process is killed."""
    partial = path.with_name(path.name + PARTIAL)
    with partial.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


@dataclass(frozen=True)
class Marker:
    """What a complete checkpoint says of itself.

    step, max_steps: optimizer steps done, and the run's number of them.
    seconds: wall time of the run so far, over all its processes' lives.
    world_size: processes that trained.
    """

    step: int
    max_steps: int
    seconds: float
    world_size: int


class RunFolder:
    """The folder that `--out` names."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / CHECKPOINTS

    def check(self, recipe: Recipe) -> bool:
        """Whether this very run has finished here. Raises InputError where the folder holds anything else than it."""
        if not os.path.exists(self.path):
            return False
        if not os.path.isdir(self.path):
            raise InputError(f"--out {self.path} is a file: give a folder, new or of the same run")
        if not os.path.exists(self.path / RECIPE):
            strange = [name for name in names_in(self.path) if not name.endswith(PARTIAL)]
            if strange:
                raise InputError(
                    f"--out {self.path} is not empty ({strange[0]} is in it) and holds no run: give a new folder"
                )
            return False
        there = Recipe.from_file(self.path / RECIPE)
        if changed := there.differences(recipe):
            told = "; ".join(
                f"{name} is {_shown(there, name)} there and {_shown(recipe, name)} here" for name in changed
            )
            raise InputError(
                f"--out {self.path} already holds another run ({told}): give another folder, or that recipe"
            )
        return os.path.exists(self.path / METRICS)

    def begin(self, recipe: Recipe) -> None:
        """Makes the folder and leaves the recipe in it; does nothing where it is already."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not (self.path / RECIPE).exists():
                write_whole(self.path / RECIPE, recipe.to_toml())
        except OSError as error:
            raise InputError(f"cannot write to --out {self.path}: {error.strerror}") from None

    def clear_incomplete(self) -> None:
        """Removes what a killed process left half-written."""
        for path in self._found():
            if not (path / MARKER).exists():
                shutil.rmtree(path)

    def last_checkpoint(self) -> tuple[Path, Marker] | None:
        """The complete checkpoint that is furthest on, None if there is none."""
        complete = [path for path in self._found() if (path / MARKER).exists()]
        if not complete:
            return None
        latest = max(complete, key=_step)
        try:
            marker = build(Marker, read_json(latest / MARKER))
            if (latest / STATE).exists():
                read_json(latest / STATE)  # transformers opens it without such care
        except ValueError as error:
            raise InputError(
                f"the checkpoint {latest} is damaged ({brief(error)}): remove that folder, and the run goes on from "
                "an earlier one or begins again"
            ) from error
        return latest, marker

    def complete(self, checkpoint: Path, marker: Marker) -> None:
        """Declares a checkpoint complete, then removes the others."""
        write_whole(checkpoint / MARKER, json.dumps(asdict(marker)))
        for path in self._found():
            if path != checkpoint:
                (path / MARKER).unlink(missing_ok=True)
                shutil.rmtree(path)

    def finish(self, metrics: dict[str, Any]) -> None:
        """Writes `metrics.json`, with which the run is finished, then removes its checkpoints."""
        write_whole(self.path / METRICS, json.dumps(metrics, indent=2) + "\n")
        self.tidy()

    def abandon(self) -> None:
        """Removes what the run has written, where there is no checkpoint yet to go on from."""
        if self.last_checkpoint() is None:
            self.tidy()
            (self.path / RECIPE).unlink(missing_ok=True)
            if not any(self.path.iterdir()):
                self.path.rmdir()

    def tidy(self) -> None:
        """Removes what only an unfinished run needs."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def metrics(self) -> dict[str, Any]:
        """The finished run's `metrics.json`. Raises InputError where there is none that can be read."""
        if not os.path.isdir(self.path):
            raise InputError(f"there is no folder {self.path}: give one that `sparseq compress` has written")
        if not os.path.exists(self.path / METRICS):
            state = "an unfinished run: give the same `sparseq compress` command again"
            none = f"no {METRICS}: give a folder that `sparseq compress` has written"
            raise InputError(f"{self.path} holds {state if os.path.exists(self.path / RECIPE) else none}")
        found = read_json(self.path / METRICS)
        if not isinstance(found, dict) or not isinstance(found.get("task_definition"), dict):
            raise InputError(f"{self.path / METRICS} is not what `sparseq compress` wrote: run it into a new folder")
        return found

    def _found(self) -> list[Path]:
        return [path for path in self.checkpoints.glob("checkpoint-*") if path.is_dir() and path.name[11:].isdecimal()]


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _shown(recipe: Recipe, name: str) -> str:
    value = getattr(recipe, name)
    return (",".join(map(str, value)) or "none") if isinstance(value, tuple) else str(value)
