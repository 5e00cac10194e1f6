"""The study `minilm-defaults` as a table: each value of a setting beside the default, over seeds.

A configuration stands beside the one of its task, size and methods that differs from the defaults in nothing.
"""

from bench.render import NO_RESULTS, table
from bench.studies.comparisons import between
from bench.studies.findings import ERRORS, outcome
from bench.studies.published import STUDIES
from sparseq.study.records import StudyResults
from sparseq.study.report.configurations import Configuration, Configurations, method_label, setting_text

STUDY = "minilm-defaults"
_HEAD = (
    "methods", "instead of the default", "held-out rows", "difference", "development set", "difference of it", "seeds",
)  # fmt: skip


def alternatives(results: StudyResults | None = None) -> str:
    """Scores in points of 100, differences with their standard error; and what is better than a default."""
    file = STUDIES / f"{STUDY}.json"
    if results is None:
        if not file.exists():
            return NO_RESULTS
        results = StudyResults.from_file(file)
    found = [one for one in Configurations(results).items if one.seeds_done and not one.only_teachers]
    defaults = {_place(one): one for one in found if not one.settings}
    rows, better = [], []
    for one in found:
        if (default := defaults.get(_place(one))) is None:
            continue
        named = (method_label(one.methods), setting_text(one.settings))
        scores: list[str] = []
        for estimate, held_out in ((one.held_out, True), (one.score, False)):
            scores.append(f"{100 * estimate.mean:.2f}" if estimate else "-")
            if one is default or one.seeds_done < 2:  # a single pair of held-out scores has no standard error
                scores.append("")
                continue
            difference = outcome(between(STUDY, one, default), results, held_out=held_out)
            scores.append(f"{difference.points:+.2f} ± {difference.error:.2f}")
            if held_out and difference.points > ERRORS * difference.error:
                better.append(" ".join(named))
        rows.append((*named, *scores, str(one.seeds_done)))
    said = f"Better than the default on the held-out rows by {ERRORS:g} standard errors: {'; '.join(better) or 'none'}."
    where = f"commit {str(results.conditions.get('published at commit'))[:10]}"
    return f"{where}\n\n{table(_HEAD, rows, text=2)}\n{said}\n"


def _place(one: Configuration) -> tuple[str, str, tuple[str, ...]]:
    return one.task, one.size, one.methods
