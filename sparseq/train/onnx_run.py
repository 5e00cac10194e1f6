"""The run of an exported model: its task, its recipe and its tokenizer, as the ONNX file holds them."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sparseq.errors import InputError
from sparseq.onnx import OnnxModel
from sparseq.reading import brief, build, parse_json
from sparseq.tasks import Task

from .recipe import Recipe

# The entry of the file's metadata.
RUN = "sparseq.run"


@dataclass(frozen=True)
class OnnxRun:
    """What an exported file holds of its run, as JSON values.

    task, recipe: `Task.as_dict`, and the recipe's settings without `out`. tokenizer: digest of the saved tokenizer.
    versions: of the libraries that saved it.
    """

    task: dict[str, Any]
    recipe: dict[str, Any]
    tokenizer: str | None
    versions: dict[str, str]

    @classmethod
    def of(cls, task: Task, recipe: Recipe, metrics: dict[str, Any]) -> "OnnxRun":
        """metrics: the run's `metrics.json`."""
        settings = {field.name: getattr(recipe, field.name) for field in fields(recipe) if field.name != "out"}
        settings = {name: value for name, value in settings.items() if value is not None}
        return cls(task.as_dict(), settings, metrics.get("tokenizer"), metrics.get("versions", {}))

    def metadata(self) -> dict[str, str]:
        """The entry for the file's metadata; `read_run` reads it back."""
        return {RUN: json.dumps({field.name: getattr(self, field.name) for field in fields(self)})}

    def finished(self, path: str | Path) -> tuple[Task, Recipe]:
        """The task and the recipe. Raises InputError, naming the file, for values that are none."""
        return Task.from_dict(self.task), Recipe.from_dict(self.recipe, str(path))


def read_run(path: str | Path) -> OnnxRun:
    """What a file says of its run. Raises InputError if it was exported from no run's folder, and like `OnnxModel`."""
    text = OnnxModel(path).metadata.get(RUN)
    if text is None:
        raise InputError(f"{path} does not say of which task it is: give a file that `sparseq export` has written")
    try:
        return build(OnnxRun, parse_json(text))
    except ValueError as error:
        raise InputError(f"{path} is not what `sparseq export` wrote ({brief(error)}): export it again") from error
