"""What the published studies found: each claim with the comparisons that it rests on, computed from their results.

python -m bench.studies.findings            writes docs/results/findings.md
python -m bench.studies.findings --check    exits with 1 if the page differs, or if a claim does not hold any more
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.program import run_program
from bench.studies.claims import FINDINGS, Comparison, Configured, Finding
from bench.studies.published import REPORTS, STUDIES
from sparseq.errors import InputError
from sparseq.study.records import Record, StudyResults
from sparseq.study.report.statistics import over_seeds
from sparseq.terminal import say
from sparseq.train.durable import write_whole

PAGE = REPORTS / "findings.md"
ERRORS = 2.0
"""How many standard errors a difference must be away from 0 to be a difference."""

_HEAD = """# What the studies found

Each line compares two configurations: the first beside the second. The difference of scores is the mean over all sizes
and seeds that have both, in points of 100. Its standard error is the larger of two: over these pairs, and over the rows
that they are scored on. "Times smaller" and "times faster" are the second's stored bytes, and its time a sentence in
batches of 32, over the first's. A claim says that there is a difference only if it is at least {errors:g} standard
errors. The page is generated: `python -m bench.studies.findings`.

The studies: {studies}.
"""
_COLUMNS = ("first", "second", "points", "standard error", "pairs", "times smaller", "times faster", "cells")


@dataclass(frozen=True)
class Outcome:
    """A comparison's numbers. pairs: the cells, first and second. points, error: of the difference of scores."""

    pairs: tuple[tuple[Record, Record], ...]
    points: float
    error: float
    smaller: float
    faster: float | None

    @property
    def says(self) -> str:
        if abs(self.points) < ERRORS * self.error:
            return "no difference"
        return "better" if self.points > 0 else "worse"


@cache
def results_of(study: str) -> StudyResults:
    """The published results. Raises InputError if there are none of that name."""
    return StudyResults.from_file(STUDIES / f"{study}.json")


def outcome(comparison: Comparison, results: StudyResults) -> Outcome:
    """Raises InputError if no seed has both configurations."""
    pairs = []
    for first, second in comparison.places(results.sizes):
        left, right = _by_seed(results, comparison, *first), _by_seed(results, comparison, *second)
        pairs += [(left[seed], right[seed]) for seed in sorted(left.keys() & right.keys())]
    if not pairs:
        raise InputError(f"no seed of the study {results.name} has both {comparison.first} and {comparison.second}")
    differences = [_score(one) - _score(other) for one, other in pairs]
    spread = over_seeds(differences).error or 0.0
    rows = math.sqrt(math.fsum(_variance(one) + _variance(other) for one, other in pairs)) / len(pairs)
    times = [(one.latency["32"].speedup, other.latency["32"].speedup) for one, other in pairs if _timed(one, other)]
    return Outcome(
        tuple(pairs),
        100 * over_seeds(differences).mean,
        100 * max(spread, rows),
        _geometric([(other.stored_bytes or 0) / (one.stored_bytes or 1) for one, other in pairs]),
        _geometric([one / other for one, other in times]) if times else None,
    )


def _by_seed(results: StudyResults, comparison: Comparison, size: str, wanted: Configured) -> dict[int, Record]:
    return {
        record.seed: record
        for record in results.records
        if record.done
        and record.score is not None
        and (record.task, record.size, record.methods) == (comparison.task, size, wanted.methods)
        and record.settings == wanted.settings
    }


def _score(record: Record) -> float:
    assert record.score is not None
    return record.score


def _variance(record: Record) -> float:
    """Of a score that is a share of rows."""
    return _score(record) * (1 - _score(record)) / (record.rows or 1)


def _timed(*records: Record) -> bool:
    return all("32" in record.latency for record in records) and len({r.processor for r in records}) == 1


def _geometric(values: Sequence[float]) -> float:
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def page(findings: Sequence[Finding] = FINDINGS) -> str:
    """The page. Raises InputError for a claim that the results do not bear out."""
    studies = dict.fromkeys(one.study for finding in findings for one in finding.comparisons)
    parts = [_HEAD.format(errors=ERRORS, studies=", ".join(f"[{name}]({name}/report.md)" for name in studies))]
    for number, finding in enumerate(findings, 1):
        parts.append(f"\n## {number}. {finding.claim}\n\n{finding.comment}\n" if finding.comment else
                     f"\n## {number}. {finding.claim}\n")  # fmt: skip
        parts.append(f"\n| {' | '.join(_COLUMNS)} |\n| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |\n")
        for comparison in finding.comparisons:
            found = outcome(comparison, results_of(comparison.study))
            if comparison.expected not in (None, found.says):
                raise InputError(
                    f"claim {number} ({finding.claim!r}) expects {comparison.expected!r} of {comparison.first} beside "
                    f"{comparison.second}, and the results say {found.says!r}: {found.points:.2f} points, standard "
                    f"error {found.error:.2f}"
                )
            parts.append(_row(comparison, found))
    return "".join(parts)


def _row(comparison: Comparison, found: Outcome) -> str:
    cells = [one.cell for pair in found.pairs for one in pair]
    shown = dict.fromkeys(cells)
    return "| {} | {} | {:+.2f} | {:.2f} | {} | {:.2f} | {} | {} |\n".format(
        comparison.name(0),
        comparison.name(1),
        found.points,
        found.error,
        len(found.pairs),
        found.smaller,
        "-" if found.faster is None else f"{found.faster:.2f}",
        " ".join(f"`{name}`" for name in shown),
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Writes what the published studies found.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if the page is stale")
    given = parser.parse_args(argv)
    text = page()
    if not given.check:
        write_whole(PAGE, text)
        say(str(PAGE))
        return 0
    if not Path(PAGE).exists() or PAGE.read_text("utf-8") != text:
        say(f"{PAGE} is not what the studies say: run python -m bench.studies.findings", error=True)
        return 1
    return 0


if __name__ == "__main__":
    run_program(main)
