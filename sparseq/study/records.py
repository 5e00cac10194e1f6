"""The results of a study as data: one record per cell, read from the study's folder and kept as one JSON file."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from sparseq.errors import InputError
from sparseq.reading import brief, build, read_json
from sparseq_kernels.untrusted import quoted

FORMAT = 1
DONE, FAILED, MISSING = "done", "failed", "missing"

TOLERANCE = 0.005
"""How far, as a fraction, a smaller model's score may be below the plain one's: the half point of Movva et al. 2022."""


@dataclass(frozen=True)
class Latency:
    """Time per sentence of one batch size, timed alternately with the cell's teacher in one process.

    milliseconds: median, with its 95 % interval [low, high]. speedup: teacher's time / own time, the median of the
    rounds' ratios, with its interval.
    """

    milliseconds: float
    low: float
    high: float
    speedup: float
    speedup_low: float
    speedup_high: float


@dataclass(frozen=True)
class Record:
    """One cell of a study.

    Attributes:
        cell: its name, unique in the study.
        grids: of the study file that it belongs to, in its order.
        size, task: their names in the study file.
        methods: of the recipe, in order; empty for plain fine-tuning.
        settings: the values of the settings that vary in the study, for those that matter to this cell.
        state: "done", "failed" or "missing".
        reason: why it failed, one sentence.
        is_teacher: whether other cells learn from it, or are timed beside it.
        score, held_out_score: the task's score, a fraction: on the validation rows, and on training rows that no cell
            was trained on. Recipes are chosen by the latter, and reported by the former.
        rows: how many rows `score` was measured on. right: which of them were answered right (`train.answers`).
        paper_bytes, stored_bytes, parameters, nonzero: see `sparseq.size_report`.
        seconds: wall time of the run.
        latency: by batch size, such as "1" and "32".
        processor, threads: on which the latency was measured.
        way: how the model's encoder ran then, as `sparseq.nn.fused_way` says.
        recipe: the settings of `sparseq compress` that the run had, those that are not its defaults; empty if they are
            not known.

    Numbers are None unless the cell is done, and where they were not measured.
    """

    cell: str
    grids: tuple[str, ...]
    task: str
    size: str
    methods: tuple[str, ...]
    seed: int
    settings: dict[str, Any]
    state: str
    reason: str = ""
    is_teacher: bool = False
    score: float | None = None
    held_out_score: float | None = None
    rows: int | None = None
    right: str | None = None
    sparsity_reached: float | None = None
    paper_bytes: int | None = None
    stored_bytes: int | None = None
    parameters: int | None = None
    nonzero: int | None = None
    seconds: float | None = None
    latency: dict[str, Latency] = field(default_factory=dict)
    processor: str | None = None
    threads: int | None = None
    way: str | None = None
    recipe: dict[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        return self.state == DONE


@dataclass(frozen=True)
class StudyResults:
    """All records of a study.

    Attributes:
        name: of the study.
        sizes, tasks: their names in the order of the study file; sizes from the largest to the smallest.
        metrics: the name of each task's score, such as "accuracy".
        records: one per cell, in the order of the study file.
        common: the settings that all cells share.
        conditions: versions, processors, commit and date, as text.
    """

    name: str
    sizes: tuple[str, ...]
    tasks: tuple[str, ...]
    metrics: dict[str, str]
    records: tuple[Record, ...]
    common: dict[str, Any] = field(default_factory=dict)
    conditions: dict[str, Any] = field(default_factory=dict)

    def of_grids(self, names: Collection[str]) -> "StudyResults":
        """The results of some grids, with all teachers. Raises InputError for a name that no cell has."""
        there = list(dict.fromkeys(name for record in self.records for name in record.grids))
        for name in names:
            if name not in there:
                raise InputError(f"there is no grid {quoted(name)} in the study: its grids are {', '.join(there)}")
        kept = [one for one in self.records if one.is_teacher or set(names) & set(one.grids)]
        return replace(self, records=tuple(kept))

    def as_json(self) -> str:
        """The document that `from_file` reads."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_file(cls, path: str | Path) -> "StudyResults":
        """Reads a document of `as_json`. Raises InputError if it is not one."""
        content = read_json(Path(path))
        try:
            if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
                raise ValueError(f"it has not format {FORMAT}")
            return build(cls, content)
        except ValueError as error:
            raise InputError(f"{path} holds no results of a study ({brief(error)})") from error
