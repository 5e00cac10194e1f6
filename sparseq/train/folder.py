"""The run's folder: which run it holds, how far that run is, and its checkpoints.

The protocol that makes a run survive being killed at any moment, and never go on from what it did not write:
- one run at a time holds the folder's lock (see `lock`);
- `recipe.toml`, then `checkpoints/fingerprint.json` (see `fingerprint`) are written first and say whose folder it is;
- `checkpoints/checkpoint-N/complete` is written after everything else in that checkpoint is on the disk, with the size
  and sha256 of every file, and removed before anything else of it is; a checkpoint that does not fit its marker does
  not count and is cleared away at the next start;
- the last complete checkpoint stays until the next one is complete, and the one before it after that;
- `metrics.json` is written last, when the model is packed, saved, loaded back and scored: with it the run is finished.
Each of these files appears whole or not at all.
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

from .durable import PARTIAL, read_sealed, seal, unseal, write_sealed, write_whole
from .fingerprint import differing
from .lock import LOCK, run_lock
from .recipe import Recipe
from .settings import flag

RECIPE, METRICS, CHECKPOINTS, MARKER = "recipe.toml", "metrics.json", "checkpoints", "complete"
FINGERPRINT = "fingerprint.json"


@dataclass(frozen=True)
class Marker:
    """What a complete checkpoint says of itself.

    step, max_steps: optimizer steps done, and the run's number of them.
    seconds: wall time of the run so far, over all its processes' lives.
    world_size: processes that trained. threads: of each of them, see `torch.get_num_threads`.
    conditions: see `conditions.current`; empty in what older versions wrote.
    """

    step: int
    max_steps: int
    seconds: float
    world_size: int
    threads: int
    conditions: dict[str, str] = field(default_factory=dict)

    def changed(self, now: dict[str, str]) -> list[str]:
        """What differs now from the conditions that the checkpoint was written under, in words."""
        before = {**self.conditions, "threads": str(self.threads)}
        pairs = ((name, before.get(name, value), value) for name, value in now.items())
        return [f"{name}: {old} before, {new} now" for name, old, new in pairs if old != new]


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
        """Keeps other runs out while the block runs: see `run_lock`."""
        return run_lock(self.path, say, ours=os.path.exists(self.path / RECIPE))

    def begin(self, recipe: Recipe, fingerprint: dict[str, str]) -> list[str]:
        """Leaves the recipe and the fingerprint in the folder, and removes what cannot be gone on from; returns a
        sentence for each checkpoint that is damaged.

        InputError: the run that was begun here has another fingerprint. MachineError: the folder cannot be written to.
        """
        known = self._fingerprint()
        if known is not None:
            changed, unknown = differing(known, fingerprint)
            if changed:
                raise self.other_run(changed)
            told = [
                f"whether the {name} is still the same cannot be told: the libraries are others" for name in unknown
            ]
            return told + self.clear_incomplete()
        told = []
        if self._found():
            told.append(f"the checkpoints in {self.checkpoints} do not say what they were trained on and are not used")
        if not (self.path / RECIPE).exists():
            write_whole(self.path / RECIPE, recipe.to_toml())
        with writing(self.checkpoints):
            self.tidy()
            self.checkpoints.mkdir()
        write_sealed(self.checkpoints / FINGERPRINT, fingerprint)
        return told

    def other_run(self, changed: list[str]) -> InputError:
        """What to raise where the run in the folder had the same settings and another fingerprint."""
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
        """Removes what a killed process left half-written, and what does not fit its marker; a sentence for each of the
        latter."""
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
        """The complete checkpoint that is furthest on and is as it was written, None if there is none."""
        for path in sorted(self._found(), key=_step, reverse=True):
            try:
                return path, self._marker(path)
            except ValueError:
                continue
        return None

    def make_room(self, checkpoint: Path) -> None:
        """Before a checkpoint is written: leaves of the others only the last one."""
        for path in sorted((path for path in self._found() if path != checkpoint), key=_step)[:-1]:
            self._remove(path)

    def complete(self, checkpoint: Path, marker: Marker) -> None:
        """Declares a checkpoint complete. MachineError: it cannot be written."""
        seal(checkpoint, MARKER, asdict(marker))

    def discard(self, checkpoint: Path) -> None:
        """Removes a checkpoint that could not be written to its end."""
        shutil.rmtree(checkpoint, ignore_errors=True)

    def finish(self, metrics: dict[str, Any]) -> None:
        """Writes `metrics.json`, with which the run is finished, then removes its checkpoints."""
        write_whole(self.path / METRICS, json.dumps(metrics, indent=2) + "\n")
        self.tidy()

    def abandon(self) -> None:
        """Removes what the run has written, where there is no checkpoint yet to go on from."""
        if self.last_checkpoint() is None:
            self.tidy()
            (self.path / RECIPE).unlink(missing_ok=True)

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
        odd = f"{self.path / METRICS} is not what `sparseq compress` wrote"
        try:
            found = read_json(self.path / METRICS)
        except InputError as error:
            raise InputError(f"{odd} ({brief(error)}): run it into a new folder") from error
        if not isinstance(found, dict) or not isinstance(found.get("task_definition"), dict):
            raise InputError(f"{odd}: run it into a new folder")
        return found

    def _marker(self, checkpoint: Path) -> Marker:
        """ValueError, a short reason: the checkpoint is not complete, or not as it was written."""
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
