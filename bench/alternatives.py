"""The study `minilm-defaults` as a table: each value of a setting beside the default, over seeds.

A configuration's methods say which it stands beside: the one that has them and differs from the defaults in nothing.
"""

from collections.abc import Callable
from statistics import mean

from bench.render import NO_RESULTS, table
from bench.studies.findings import ERRORS
from bench.studies.published import STUDIES
from sparseq.study.records import Record, StudyResults
from sparseq.study.report.configurations import Configuration, Configurations, method_label, setting_text
from sparseq.study.report.statistics import Estimate, over_seeds

STUDY = "minilm-defaults"
_HEAD = (
    "methods", "instead of the default", "held-out rows", "difference", "development set", "difference of it", "seeds",
)  # fmt: skip


def alternatives(results: StudyResults | None = None) -> str:
    """Scores in points of 100, differences with their standard error over seeds; and what is better than a default."""
    file = STUDIES / f"{STUDY}.json"
    if results is None:
        if not file.exists():
            return NO_RESULTS
        results = StudyResults.from_file(file)
    found = [one for one in Configurations(results).items if one.done and not one.only_teachers]
    defaults = {_place(one): one for one in found if not one.settings}
    rows, better = [], []
    for one in found:
        if (default := defaults.get(_place(one))) is None:
            continue
        named = (method_label(one.methods), setting_text(one.settings))
        scores: list[str] = []
        for of in (_held_out, _score):
            values, beside = _by_seed(one, of), None if one is default else _difference(one, default, of)
            scores += [f"{100 * mean(values.values()):.2f}" if values else "-", _text(beside)]
            if of is _held_out and beside and beside.error is not None and beside.mean > ERRORS * beside.error:
                better.append(" ".join(named))
        rows.append((*named, *scores, str(one.seeds_done)))
    said = f"Better than the default on the held-out rows by {ERRORS:g} standard errors: {'; '.join(better) or 'none'}."
    where = f"commit {str(results.conditions.get('published at commit'))[:10]}"
    return f"{where}\n\n{table(_HEAD, rows, text=2)}\n{said}\n"


def _place(one: Configuration) -> tuple[str, str, tuple[str, ...]]:
    return one.task, one.size, one.methods


def _held_out(record: Record) -> float | None:
    return record.held_out_score


def _score(record: Record) -> float | None:
    return record.score


def _by_seed(one: Configuration, of: Callable[[Record], float | None]) -> dict[int, float]:
    return {record.seed: value for record in one.done if (value := of(record)) is not None}


def _difference(one: Configuration, default: Configuration, of: Callable[[Record], float | None]) -> Estimate | None:
    """In points, over the seeds that both have; None if there are none."""
    values, others = _by_seed(one, of), _by_seed(default, of)
    found = [100 * (values[seed] - others[seed]) for seed in values.keys() & others.keys()]
    return over_seeds(found) if found else None


def _text(difference: Estimate | None) -> str:
    if difference is None:
        return ""
    return f"{difference.mean:+.2f}" + ("" if difference.error is None else f" ± {difference.error:.2f}")
