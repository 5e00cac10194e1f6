"""The best models of the study `minilm-best`: each chosen by held-out rows within a limit, as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.render import NO_RESULTS, table
from bench.studies.findings import over_rows
from bench.studies.published import STUDIES
from sparseq.study.records import Record, StudyResults
from sparseq.study.report.configurations import Configurations, method_label, setting_text

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

    def admits(self, record: Record, teacher: Record) -> bool:
        smaller = (teacher.stored_bytes or 0) / (record.stored_bytes or 1)
        return smaller >= self.smaller and (not self.faster or record.latency["32"].speedup >= self.faster)


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
    done = [record for record in results.records if record.done and all(batch in record.latency for batch in BATCHES)]
    teacher = next((record for record in done if record.is_teacher), None)
    if teacher is None:
        return NO_RESULTS
    times = Configurations(results).teacher_ms(teacher.task)
    rows = [_row("(the teacher)", teacher, teacher, times)]
    found: dict[str, tuple[list[str], Record]] = {}
    for limit in LIMITS:
        if admitted := [one for one in done if one is not teacher and limit.admits(one, teacher)]:
            best = max(admitted, key=lambda one: (one.held_out_score or 0.0, -(one.stored_bytes or 0)))
            found.setdefault(best.cell, ([], best))[0].append(limit.asked)
    rows += [_row(", ".join(asked), record, teacher, times) for asked, record in found.values()]
    where = f"{teacher.processor}, {teacher.threads} thread{'s' if teacher.threads != 1 else ''}"
    return f"{where}; commit {str(results.conditions.get('published at commit'))[:10]}\n\n{table(_HEAD, rows, text=2)}"


def _row(asked: str, record: Record, teacher: Record, times: Mapping[str, float]) -> Sequence[str]:
    """times: the teacher's milliseconds by batch size."""
    assert record.score is not None and teacher.score is not None and record.stored_bytes and teacher.stored_bytes
    drop = ""
    if record is not teacher:
        points = 100 * (record.score - teacher.score)
        drop = f"{points:+.2f} ± {100 * over_rows([(record, teacher)]):.2f}"
    removed = f"{record.sparsity_reached:.0%} removed" if record.sparsity_reached else ""
    others = {name: value for name, value in record.settings.items() if name != "sparsity"}
    recipe = (record.size, method_label(record.methods), removed, setting_text(others))
    return (
        asked,
        ", ".join(part for part in recipe if part),
        f"{100 * record.score:.2f}",
        drop,
        "-" if record.held_out_score is None else f"{100 * record.held_out_score:.2f}",
        f"{record.stored_bytes / 1e6:.2f} (1/{teacher.stored_bytes / record.stored_bytes:.1f})",
        *(_time(times[batch], record.latency[batch].speedup) for batch in BATCHES),
    )


def _time(teacher: float, speedup: float) -> str:
    """The teacher's time over the speed-up, as in the report: cells are timed beside it in processes of their own, and
    their ratios vary less than their times."""
    return f"{teacher / speedup:.2f} ({speedup:.1f}x)"
