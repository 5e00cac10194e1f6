"""The configurations of a study: its cells without their seeds, each with means over the seeds that are done."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import Any

from sparseq.errors import InputError
from sparseq.study.records import DONE, Latency, Record, StudyResults
from sparseq.train.recipe import ALL_METHODS

from .statistics import Estimate, mean, number, over_seeds

ACCURACY = "accuracy"
"""The metric whose value is a share of rows, so that its binomial standard error is known."""

PRUNING = "mp"
MB = 1e6
Machine = tuple[str | None, int | None]
Settings = tuple[tuple[str, str], ...]


def method_label(methods: tuple[str, ...]) -> str:
    """Such as "QAT+KD"; "none" for plain fine-tuning."""
    return "+".join(method.upper() for method in methods) or "none"


def setting_text(values: Mapping[str, Any]) -> str:
    """Such as "sparsity 0.6, bits 4"."""
    return ", ".join(f"{name.replace('_', ' ')} {_value(value)}" for name, value in values.items())


def in_order(methods: tuple[str, ...]) -> tuple[int, list[int], tuple[str, ...]]:
    """The sorting key of sets of methods: small sets first, each in the order of `ALL_METHODS`."""
    known = [ALL_METHODS.index(method) if method in ALL_METHODS else len(ALL_METHODS) for method in methods]
    return len(methods), known, methods


@dataclass(frozen=True, eq=False)
class Configuration:
    """A task, a size, methods and settings. records: its cells, of every state; one or more per seed.

    machine: the only one of which latencies count, see `Configurations.machine`. teacher_ms: by batch size, what the
    task's teacher takes there; see `Configurations.teacher_ms`.
    """

    task: str
    size: str
    methods: tuple[str, ...]
    settings: Mapping[str, Any]
    records: tuple[Record, ...]
    metric: str
    machine: Machine
    teacher_ms: Mapping[str, float]

    @cached_property
    def done(self) -> tuple[Record, ...]:
        return tuple(record for record in self.records if record.state == DONE)

    @cached_property
    def timed(self) -> tuple[Record, ...]:
        """The cells whose latencies count."""
        return tuple(record for record in self.done if record.latency and machine_of(record) == self.machine)

    @property
    def pruned(self) -> bool:
        return PRUNING in self.methods

    @property
    def only_teachers(self) -> bool:
        return all(record.is_teacher for record in self.records)

    @property
    def label(self) -> str:
        """Such as "small, QAT+MP, sparsity 0.6"."""
        return ", ".join(part for part in (self.size, method_label(self.methods), setting_text(self.settings)) if part)

    @property
    def seeds_planned(self) -> int:
        return len({record.seed for record in self.records})

    @property
    def seeds_done(self) -> int:
        return len(self.scores)

    def by_seed(self, of: Callable[[Record], Any]) -> list[float]:
        """A number of each seed that has it; where several cells have the seed, their mean."""
        found: dict[int, list[float | None]] = {}
        for record in self.done:
            if (value := number(of(record))) is not None:
                found.setdefault(record.seed, []).append(value)
        return [value for values in found.values() if (value := mean(values)) is not None]

    @cached_property
    def scores(self) -> list[float]:
        """The score of each seed, a fraction."""
        return self.by_seed(lambda record: record.score)

    @cached_property
    def score(self) -> Estimate | None:
        if not self.scores:
            return None
        rows = {record.rows for record in self.done}
        return over_seeds(self.scores, rows.pop() if self.metric == ACCURACY and len(rows) == 1 else None)

    @cached_property
    def held_out(self) -> Estimate | None:
        # How many rows were held out is not in the records, so that a single seed has no standard error.
        values = self.by_seed(lambda record: record.held_out_score)
        return over_seeds(values) if values else None

    @cached_property
    def paper_bytes(self) -> float | None:
        return self._mean(lambda record: record.paper_bytes)

    @cached_property
    def stored_bytes(self) -> float | None:
        return self._mean(lambda record: record.stored_bytes)

    @cached_property
    def sparsity(self) -> float | None:
        return self._mean(lambda record: record.sparsity_reached)

    def latency(self, batch: str) -> Latency | None:
        """Means over the seeds; each interval from the lowest end of the seeds' intervals to the highest.

        The milliseconds are the teacher's over the speed-up. Cells are timed in different processes, in which
        the same teacher takes different times as other work comes and goes; the ratio to it does not change so much.
        """
        found = [record.latency[batch] for record in self.timed if batch in record.latency]
        found = [one for one in found if number(one.speedup) and number(one.speedup_low) and number(one.speedup_high)]
        if not found or batch not in self.teacher_ms:
            return None
        low, high = min(one.speedup_low for one in found), max(one.speedup_high for one in found)
        speedups = [one.speedup for one in found]
        share, speedup = sum(1 / one for one in speedups) / len(found), sum(speedups) / len(found)
        teacher = self.teacher_ms[batch]
        return Latency(teacher * share, teacher / high, teacher / low, speedup, low, high)

    def milliseconds(self, batch: str) -> float | None:
        found = self.latency(batch)
        return number(found.milliseconds) if found else None

    def _mean(self, of: Callable[[Record], Any]) -> float | None:
        return mean(self.by_seed(of))


@dataclass(frozen=True, eq=False)
class Configurations:
    """All configurations of a study, in the order of the study file."""

    results: StudyResults
    items: tuple[Configuration, ...] = field(init=False)

    def __post_init__(self) -> None:
        groups: dict[tuple[Any, ...], list[Record]] = {}
        for record in self.results.records:
            key = (record.task, record.size, record.methods, _canonical(record.settings))
            groups.setdefault(key, []).append(record)
        items = tuple(
            Configuration(
                records[0].task,
                records[0].size,
                records[0].methods,
                settings,
                tuple(records),
                self.results.metrics.get(records[0].task, "score"),
                self.machine,
                self.teacher_ms(records[0].task),
            )
            for group in groups.values()
            for settings, records in _told_apart(group)
        )
        object.__setattr__(self, "items", items)
        if not any(item.score for item in items):
            raise InputError(
                f"the study {self.results.name!r} has no finished cell with a score yet: run it before its report"
            )

    @cached_property
    def machine(self) -> Machine:
        """Processor and threads that timed most cells; times of others are left out, as they cannot be compared."""
        counts = self.machines
        return max(counts, key=lambda machine: counts[machine]) if counts else (None, None)

    def teacher_ms(self, task: str) -> dict[str, float]:
        """By batch size: what the task's teachers took beside the task's cells, the median over the cells."""
        found: dict[str, list[float]] = {}
        for record in self.results.records:
            if record.task == task and record.done and machine_of(record) == self.machine:
                for batch, one in record.latency.items():
                    if value := number(one.milliseconds * one.speedup):
                        found.setdefault(batch, []).append(value)
        return {batch: median(values) for batch, values in found.items()}

    @cached_property
    def machines(self) -> dict[Machine, int]:
        """How many cells each machine timed."""
        return dict(Counter(machine_of(record) for record in self.results.records if record.done and record.latency))

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        return _all(self.results.tasks, (item.task for item in self.items))

    @cached_property
    def sizes(self) -> tuple[str, ...]:
        """From the largest to the smallest."""
        return _all(self.results.sizes, (item.size for item in self.items))

    @cached_property
    def method_sets(self) -> tuple[tuple[str, ...], ...]:
        """Every set of methods of the study, small ones first."""
        return tuple(sorted({item.methods for item in self.items}, key=in_order))

    @cached_property
    def batches(self) -> tuple[str, ...]:
        """The batch sizes that were timed, in ascending order."""
        found = {batch for item in self.items for record in item.done for batch in record.latency}
        return tuple(sorted(found, key=lambda batch: (not batch.isdecimal(), len(batch), batch)))

    def of(self, task: str, methods: tuple[str, ...] | None = None) -> list[Configuration]:
        return [item for item in self.items if item.task == task and methods in (None, item.methods)]

    def baseline(self, task: str, size: str) -> Configuration | None:
        """Plain fine-tuning: the first configuration without methods in the study file, done or not.

        One without settings of its own comes first. One whose cells are all teachers counts only where there is no
        other.
        """
        found = [item for item in self.of(task, ()) if item.size == size]
        found = [item for item in found if not item.settings] or found
        return next((item for item in found if not item.only_teachers), found[0] if found else None)

    def teacher(self, task: str) -> Configuration | None:
        """The task's teacher, done or not; of several, that of the largest size, and the first in the study file."""
        found = [item for item in self.of(task) if any(record.is_teacher for record in item.records)]
        return min(found, key=lambda item: self.sizes.index(item.size), default=None)

    @cached_property
    def _axes(self) -> dict[tuple[str, ...], tuple[str, ...]]:
        groups: dict[tuple[str, ...], dict[tuple[str, str], list[Mapping[str, Any]]]] = {}
        for item in self.items:
            groups.setdefault(item.methods, {}).setdefault((item.task, item.size), []).append(item.settings)
        found = {}
        for methods, places in groups.items():
            names = dict.fromkeys(name for several in places.values() for one in several for name in one)
            found[methods] = tuple(
                name
                for name in names
                if any(len({_text(one.get(name)) for one in several}) > 1 for several in places.values())
            )
        return found

    def line(self, item: Configuration) -> dict[str, Any]:
        """The settings that tell apart the lines of a method over the sizes.

        A setting that has one value at each size and task, such as a learning rate by size, belongs to the size.
        """
        return {name: item.settings.get(name) for name in self._axes[item.methods] if name in item.settings}

    def line_key(self, item: Configuration) -> Settings:
        """What the settings of `line` are called in `lines`."""
        return _canonical(self.line(item))

    def lines(self, methods: tuple[str, ...], task: str | None = None) -> dict[Settings, list[Configuration]]:
        """The configurations of each line of a method, each in the order of sizes."""
        found: dict[Settings, list[Configuration]] = {}
        for item in self.items:
            if item.methods == methods and task in (None, item.task):
                found.setdefault(self.line_key(item), []).append(item)
        return {key: sorted(items, key=lambda item: self.sizes.index(item.size)) for key, items in found.items()}


def machine_of(record: Record) -> Machine:
    return record.processor, record.threads


def _told_apart(group: list[Record]) -> list[tuple[Mapping[str, Any], list[Record]]]:
    """Cells with the same settings. If one seed is in several grids, the grids differ in what is no setting, such as
    the model that a run starts from: then each grid is a configuration, and its name is one of the settings."""
    grids: dict[str, list[Record]] = {}
    for record in group:
        grids.setdefault(record.grids[0], []).append(record)
    if len({record.seed for record in group}) == sum(len({r.seed for r in records}) for records in grids.values()):
        return [(group[0].settings, group)]
    return [({**records[0].settings, "grid": grid}, records) for grid, records in grids.items()]


def _all(listed: Iterable[str], met: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*listed, *met]))


def _canonical(settings: Mapping[str, Any]) -> Settings:
    return tuple(sorted((name, _text(value)) for name, value in settings.items()))


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
