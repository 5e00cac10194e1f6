"""`Finding`: a claim about the studies, and the comparisons of configurations that it rests on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sparseq.study.report.configurations import Configuration, method_label, setting_text

SST2 = "sst2"


@dataclass(frozen=True)
class Configured:
    """A configuration of a study, without its size: methods, and the settings that vary in the study."""

    methods: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        methods = method_label(self.methods) if self.methods else "plain"
        return ", ".join(part for part in (methods, setting_text(self.settings)) if part)


@dataclass(frozen=True)
class Comparison:
    """One configuration beside another.

    sizes: pairs of names, of the first's and the second's; without any, each size of the study with itself, where it
    has both. expected: what the claim says of the first: "better" or "worse" than the second, or within how many points
    of it; a negative number, how many points it loses at most; None says nothing.
    """

    study: str
    first: Configured
    second: Configured
    expected: str | float | None = None
    sizes: tuple[tuple[str, str], ...] = ()
    task: str = SST2

    def places(self, sizes: Sequence[str]) -> list[tuple[tuple[str, Configured], tuple[str, Configured]]]:
        """(size, configuration) of the first and of the second."""
        chosen = self.sizes or tuple((size, size) for size in sizes)
        return [((one, self.first), (other, self.second)) for one, other in chosen]

    def name(self, number: int) -> str:
        """The first (0) or second (1) configuration with its sizes, and its task unless that is SST-2, for a table."""
        task = "" if self.task == SST2 else self.task
        sizes = ", ".join(dict.fromkeys(pair[number] for pair in self.sizes))
        return ", ".join(part for part in (task, sizes, str((self.first, self.second)[number])) if part)


def between(study: str, first: Configuration, second: Configuration) -> Comparison:
    """Of two configurations of a study's results, on the first's task."""
    one, other = (Configured(each.methods, each.settings) for each in (first, second))
    return Comparison(study, one, other, sizes=((first.size, second.size),), task=first.task)


@dataclass(frozen=True)
class Finding:
    """claim: one sentence. comment: what it means for a user, or how far it holds."""

    claim: str
    comparisons: tuple[Comparison, ...]
    comment: str = ""


def configured(methods: str, **settings: Any) -> Configured:
    """methods: separated by commas, or none."""
    return Configured(tuple(methods.split(",")) if methods != "none" else (), settings)


def pruned(methods: str, pattern: str, **more: Any) -> Configured:
    """To 60 %, by magnitude unless `more` says otherwise."""
    return configured(methods, **{"sparsity": 0.6, "pattern": pattern, "criterion": "magnitude", **more})


def fisher(methods: str, pattern: str, **more: Any) -> Configured:
    """The same by the loss that a removal adds."""
    return pruned(methods, pattern, **{"criterion": "fisher", **more})
