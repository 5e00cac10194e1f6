"""The best models of the study `minilm-best`: each chosen by held-out rows within a limit, as a table."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.render import NO_RESULTS, table
from bench.studies.comparisons import between
from bench.studies.findings import outcome
from bench.studies.published import STUDIES
from sparseq.study.records import StudyResults
from sparseq.study.report.configurations import Configuration, Configurations, method_label, setting_text

STUDY, BATCHES = "minilm-best", ("1", "32")
_HEAD = (
    "best of those with", "model", "accuracy", "beside the teacher", "held-out rows", "stored MB",
    *(f"ms a sentence, batch {batch}" for batch in BATCHES),
)  # fmt: skip


@dataclass(frozen=True)
class Limit:
    """How many times smaller, in stored bytes, and faster, in batches of 32, than the teacher."""

    asked: str
    smaller: float = 0.0
    faster: float = 0.0

    def admits(self, one: Configuration, teacher: Configuration) -> bool:
        smaller, time = (teacher.stored_bytes or 0) / (one.stored_bytes or 1), one.latency("32")
        return smaller >= self.smaller and (not self.faster or (time is not None and time.speedup >= self.faster))


LIMITS = (
    Limit("at most 1/10 of the bytes", smaller=10),
    Limit("at most 1/14 of the bytes", smaller=14),
    Limit("at least 8 times the speed", faster=8),
)


def best_models(results: StudyResults | None = None) -> str:
    """The teacher, and for each limit the model with the best held-out score among those that it admits."""
    file = STUDIES / f"{STUDY}.json"
    if results is None:
        if not file.exists():
            return NO_RESULTS
        results = StudyResults.from_file(file)
    done = [one for one in Configurations(results).items if one.timed and one.held_out]
    teacher = next((one for one in done if one.only_teachers), None)
    if teacher is None:
        return NO_RESULTS
    rows = [("(the teacher)", recipe_text(teacher), *score_cells(teacher, teacher, "", BATCHES))]
    found: dict[str, tuple[list[str], Configuration]] = {}
    for limit in LIMITS:
        if admitted := [one for one in done if one is not teacher and limit.admits(one, teacher)]:
            best = max(admitted, key=lambda one: (one.held_out.mean if one.held_out else 0, -(one.stored_bytes or 0)))
            found.setdefault(best.label, ([], best))[0].append(limit.asked)
    for asked, best in found.values():
        difference = outcome(between(STUDY, best, teacher), results)
        cells = score_cells(best, teacher, f"{difference.points:+.2f} ± {difference.error:.2f}", BATCHES)
        rows.append((", ".join(asked), recipe_text(best), *cells))
    return f"{where(Configurations(results))}\n{table(_HEAD, rows, text=2)}"


def where(study: Configurations) -> str:
    """On what a study was timed, and the commit of its results."""
    processor, threads = study.machine
    machine = f"{processor}, {threads} thread{'s' if threads != 1 else ''}; " if processor else ""
    return f"{machine}commit {str(study.results.conditions.get('published at commit'))[:10]}\n"


def recipe_text(one: Configuration) -> str:
    """A configuration in words: size, methods, the share of weights that is removed, and other settings."""
    removed = f"{one.sparsity:.0%} removed" if one.sparsity else ""
    others = {name: value for name, value in one.settings.items() if name != "sparsity"}
    return ", ".join(part for part in (one.size, method_label(one.methods), removed, setting_text(others)) if part)


def score_cells(one: Configuration, teacher: Configuration, difference: str, batches: Sequence[str]) -> Sequence[str]:
    """Score, difference, held-out score, MB and times; those beside the teacher's."""
    assert one.score and one.held_out and one.stored_bytes
    times = [one.latency(batch) for batch in batches]
    return (
        f"{100 * one.score.mean:.2f}",
        difference,
        f"{100 * one.held_out.mean:.2f}",
        f"{one.stored_bytes / 1e6:.2f} (1/{(teacher.stored_bytes or 0) / one.stored_bytes:.1f})",
        *(f"{time.milliseconds:.2f} ({time.speedup:.1f}x)" if time else "-" for time in times),
    )
