"""The run's folder: which run it belongs to, how far that run is, and its checkpoints.

With this protocol a run can be killed at any moment, and never continues from anything that it did not write:

- one run at a time holds the folder's lock (see `lock`);
- `recipe.toml`, then `checkpoints/fingerprint.json` (see `fingerprint`) are written first and identify the run;
- `checkpoints/checkpoint-N/complete` is written after everything else in that checkpoint is on disk, with the size and
  sha256 of every file, and is removed before the rest; a checkpoint that does not match its marker does not count and
  is removed at the next start;
- `checkpoints/best-N` has the best weights so far, and is marked in the same way;
- `training.csv` has a row for each step (see `curve`); that of a checkpoint is in it, and is what counts;
- the last complete checkpoint stays until the next one is complete, and the one before it after that;
- `metrics.json` is written last, after the model was packed, saved, loaded back and scored: then the run is finished.

Each of these files appears completely or not at all.
"""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sparseq.errors import InputError
from sparseq.failures import writing
from sparseq.paths import names_in
from sparseq.reading import brief, build, read_json
from sparseq.terminal import shown

from .curve import CURVE
from .durable import PARTIAL, read_sealed, seal, unseal, write_sealed, write_whole
from .fingerprint import differing
from .lock import LOCK, run_lock
from .recipe import Recipe
from .settings import flag

RECIPE, METRICS, CHECKPOINTS, MARKER = "recipe.toml", "metrics.json", "checkpoints", "complete"
FINGERPRINT = "fingerprint.json"


@dataclass(frozen=True)
class Marker:
    """The description of a complete checkpoint.

    step, max_steps: optimizer steps done, and the total of the run. seconds: wall time of the run so far, over all its
    processes' lives. world_size: the number of processes that trained. threads: of each of them, see
    `torch.get_num_threads`. conditions: see `conditions.current`; empty in checkpoints of older versions.
    """

    step: int
    max_steps: int
    seconds: float
    world_size: int
    threads: int
    conditions: dict[str, str] = field(default_factory=dict)

    def changed(self, now: dict[str, str]) -> list[str]:
        """The conditions that have changed since the checkpoint was written, in words."""
        before = {**self.conditions, "threads": str(self.threads)}
        pairs = ((name, before.get(name, value), value) for name, value in now.items())
        return [f"{name}: {old} before, {new} now" for name, old, new in pairs if old != new]


class RunFolder:
    """The folder that `--out` names."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / CHECKPOINTS

    def check(self, recipe: Recipe) -> bool:
        """Whether this run has finished here. Raises InputError if the folder contains anything else."""
        if not os.path.exists(self.path):
            return False
        if not os.path.isdir(self.path):
            raise InputError(f"--out {self.path} is a file: give a folder, new or of the same run")
        if not os.path.exists(self.path / RECIPE):
            strange = [name for name in names_in(self.path) if name != LOCK and not name.endswith(PARTIAL)]
            if strange:
                raise InputError(
                    f"--out {self.path} is not empty ({strange[0]} is in it) and holds no run: give a new folder"
                )
            return False
        try:
            there = Recipe.from_file(self.path / RECIPE)
        except InputError as error:
            raise InputError(
                f"--out {self.path} holds a run whose settings cannot be read ({brief(error)}): remove that folder to "
                "run it again, or give another one"
            ) from error
        if changed := there.differences(recipe):
            told = "; ".join(
                f"{flag(name)} is {_shown(there, name)} there and {_shown(recipe, name)} here" for name in changed
            )
            raise InputError(
                f"--out {self.path} already holds another run ({told}): give another folder, or that recipe"
            )
        return os.path.exists(self.path / METRICS)

    def locked(self, say: Callable[[str], None]) -> AbstractContextManager[None]:
        """Keeps other runs out of the folder inside the block: see `run_lock`."""
        return run_lock(self.path, say, ours=os.path.exists(self.path / RECIPE))

    def begin(self, recipe: Recipe, fingerprint: dict[str, str]) -> list[str]:
        """Writes the recipe and the fingerprint into the folder, and removes what the run cannot continue from.

        Returns a sentence for each damaged checkpoint. Raises InputError if the run that was begun here has another
        fingerprint, and MachineError if the folder cannot be written to.
        """
        known = self._fingerprint()
        if known is not None:
            changed, unknown = differing(known, fingerprint)
            if changed:
                raise self.other_run(changed)
            told = [
                f"cannot tell whether the {name} is still the same: the versions of the libraries differ"
                for name in unknown
            ]
            return told + self.clear_incomplete()
        told = []
        if self._found():
            told.append(
                f"the checkpoints in {self.checkpoints} do not record what they were trained on and are not used"
            )
        if not (self.path / RECIPE).exists():
            write_whole(self.path / RECIPE, recipe.to_toml())
        with writing(self.checkpoints):
            self.tidy()
            self.checkpoints.mkdir()
        write_sealed(self.checkpoints / FINGERPRINT, fingerprint)
        return told

    def other_run(self, changed: list[str]) -> InputError:
        """The error for a run in the folder with the same settings and another fingerprint."""
        verb = "has" if len(changed) == 1 else "have"
        return InputError(
            f"--out {self.path} already holds a run with these settings, but the {' and the '.join(changed)} {verb} "
            "changed since: give another folder, or remove that one"
        )

    def _fingerprint(self) -> dict[str, str] | None:
        try:
            return read_sealed(self.checkpoints / FINGERPRINT)
        except ValueError:
            return None

    def clear_incomplete(self) -> list[str]:
        """Removes incomplete checkpoints of a killed process, and those that do not match their markers.

        Returns a sentence for each of the latter.
        """
        told = []
        for path in self._found():
            try:
                self._marker(path)
            except ValueError as error:
                if (path / MARKER).exists():
                    told.append(f"the checkpoint {path} is damaged ({brief(error)}) and is not used")
                with writing(path):
                    self._remove(path)
        return told

    def last_checkpoint(self) -> tuple[Path, Marker] | None:
        """The latest complete and unchanged checkpoint; None if there is none."""
        for path in sorted(self._found(), key=_step, reverse=True):
            try:
                return path, self._marker(path)
            except ValueError:
                continue
        return None

    def make_room(self, checkpoint: Path) -> None:
        """Removes all checkpoints but the last, before another one is written."""
        for path in sorted((path for path in self._found() if path != checkpoint), key=_step)[:-1]:
            self._remove(path)

    def complete(self, checkpoint: Path, marker: Marker) -> None:
        """Marks a checkpoint as complete. Raises MachineError if the marker cannot be written."""
        seal(checkpoint, MARKER, asdict(marker))

    def discard(self, checkpoint: Path) -> None:
        """Removes a checkpoint that could not be written completely."""
        shutil.rmtree(checkpoint, ignore_errors=True)

    def finish(self, metrics: dict[str, Any]) -> None:
        """Writes `metrics.json`, which marks the run as finished, then removes its checkpoints."""
        write_whole(self.path / METRICS, json.dumps(metrics, indent=2) + "\n")
        self.tidy()

    def abandon(self) -> None:
        """Removes what the run has written, if there is no checkpoint yet to continue from."""
        if self.last_checkpoint() is None:
            self.tidy()
            (self.path / CURVE).unlink(missing_ok=True)
            (self.path / RECIPE).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Removes what only an unfinished run needs."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)

    def metrics(self) -> dict[str, Any]:
        """The finished run's `metrics.json`. Raises InputError if there is none that can be read."""
        if not os.path.isdir(self.path):
            raise InputError(f"there is no folder {self.path}: give one that `sparseq compress` has written")
        if not os.path.exists(self.path / METRICS):
            state = "an unfinished run: give the same `sparseq compress` command again"
            none = f"no {METRICS}: give a folder that `sparseq compress` has written"
            raise InputError(f"{self.path} holds {state if os.path.exists(self.path / RECIPE) else none}")
        odd = f"{self.path / METRICS} is not what `sparseq compress` wrote"
        try:
            found = read_json(self.path / METRICS)
        except InputError as error:
            raise InputError(f"{odd} ({brief(error)}): run it into a new folder") from error
        if not isinstance(found, dict) or not isinstance(found.get("task_definition"), dict):
            raise InputError(f"{odd}: run it into a new folder")
        return found

    def steps(self) -> list[int]:
        """The steps that checkpoints were begun at, also incomplete ones."""
        return sorted(map(_step, self._found()))

    def _marker(self, checkpoint: Path) -> Marker:
        """The marker. Raises ValueError, with a short reason, if the checkpoint is incomplete or was changed."""
        return build(Marker, unseal(checkpoint, MARKER))

    def _remove(self, checkpoint: Path) -> None:
        marker = checkpoint / MARKER
        if not marker.is_dir():
            marker.unlink(missing_ok=True)
        shutil.rmtree(checkpoint)

    def _found(self) -> list[Path]:
        return [path for path in self.checkpoints.glob("checkpoint-*") if path.is_dir() and path.name[11:].isdecimal()]


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _shown(recipe: Recipe, name: str) -> str:
    value = getattr(recipe, name)
    if value is None or (value == () and name != "methods"):
        return "not given"
    if isinstance(value, bool):
        return "on" if value else "off"
    return (",".join(map(str, value)) or "none") if isinstance(value, tuple) else shown(str(value))
