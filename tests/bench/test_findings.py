"""Findings: differences with their errors, and claims that fail when the results do not bear them out."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from bench.check import WrongResultError
from bench.studies import findings
from bench.studies.claims import FINDINGS, PLAIN, QAT
from bench.studies.comparisons import Comparison, Finding
from sparseq.errors import InputError
from sparseq.paired import PairedAnswers
from sparseq.study.records import Latency, Record, StudyResults
from sparseq.train.answers import from_text, to_text


def record(size: str, methods: tuple[str, ...], seed: int, score: float, **more: Any) -> Record:
    settings = dict[str, Any](more.pop("settings", {}))
    return Record(
        f"{size}-{'+'.join(methods)}-{seed}", ("g",), "sst2", size, methods, seed, settings, "done", score=score,
        rows=100, stored_bytes=100 if methods else 400, **more,
    )  # fmt: skip


def made(records: tuple[Record, ...], metric: str = "accuracy") -> StudyResults:
    return StudyResults("made", ("L2",), ("sst2",), {"sst2": metric}, records)


def faster(times: float, processor: str = "p") -> dict[str, Any]:
    return {"latency": {"32": Latency(1, 1, 1, times, times, times)}, "processor": processor, "way": "one call"}


RESULTS = StudyResults(
    "made",
    ("L2", "L1"),
    ("sst2",),
    {"sst2": "accuracy"},
    (
        record("L2", (), 0, 0.90, **faster(1)),
        record("L2", (), 1, 0.90, **faster(1)),
        record("L1", (), 0, 0.80),
        record("L2", ("qat",), 0, 0.88, **faster(4)),
        record("L2", ("qat",), 1, 0.88, **faster(9, "another")),
        record("L1", ("qat",), 0, 0.79),
        record("L1", ("qat",), 1, 0.10),  # has no plain model of its seed
        record("L2", ("qat",), 0, 0.10, settings={"bits": 4}),
    ),
)


def test_a_difference_is_over_the_pairs_that_there_are() -> None:
    found = findings.outcome(Comparison("made", QAT, PLAIN), RESULTS)
    assert [(one.cell, other.cell) for one, other in found.pairs] == [
        ("L2-qat-0", "L2--0"), ("L2-qat-1", "L2--1"), ("L1-qat-0", "L1--0")
    ]  # fmt: skip
    assert found.points == pytest.approx(-5 / 3)
    rows = math.sqrt(2 * (0.88 * 0.12 + 0.9 * 0.1) + 0.79 * 0.21 + 0.8 * 0.2) / math.sqrt(100) / 3
    assert found.error == pytest.approx(100 * rows)  # more than over the pairs
    assert found.smaller == pytest.approx(4) and found.faster == pytest.approx(4)
    assert not found.bears_out("better") and not found.bears_out("worse") and found.bears_out(None)
    assert found.bears_out(7.4) and not found.bears_out(7.2)  # 1.67 and two standard errors
    # What it loses at most: a difference for the better counts as no loss.
    assert found.bears_out(-7.4) and not found.bears_out(-7.2)
    better = dataclasses.replace(found, points=-found.points)
    assert better.bears_out(-4.1) and not better.bears_out(-3.8) and not better.bears_out(4.1)


def test_pairs_that_differ_more_than_their_rows_do() -> None:
    scores = {((), 0): 0.9, ((), 1): 0.9, (("qat",), 0): 0.9, (("qat",), 1): 0.5}
    records = tuple(record("L2", methods, seed, score) for (methods, seed), score in scores.items())
    found = findings.outcome(Comparison("made", QAT, PLAIN), made(records))
    assert found.error == pytest.approx(20) and found.points == pytest.approx(-20)


def test_sizes_that_are_compared_with_others() -> None:
    found = findings.outcome(Comparison("made", QAT, PLAIN, sizes=(("L2", "L1"),)), RESULTS)
    assert found.points == pytest.approx(8) and len(found.pairs) == 1 and found.faster is None


def test_nothing_to_compare_is_said() -> None:
    with pytest.raises(InputError, match="no seed of the study made has both QAT and plain"):
        findings.outcome(Comparison("made", QAT, PLAIN, task="stsb"), RESULTS)


def test_a_claim_that_does_not_hold_stops_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "results_of", lambda name: RESULTS)
    for expected in ("better", "worse", 7.2):
        with pytest.raises(WrongResultError, match=f"claim 1 .* expects '?{expected}'? .* the difference is -1.67"):
            findings.page([Finding("It differs", (Comparison("made", QAT, PLAIN, expected),))])
    text = findings.page([Finding("It is the same", (Comparison("made", QAT, PLAIN, 7.4),))])
    assert "| QAT | plain | -1.67 | 2.82 | 2 | 3 | 4.00 | 4.00 | `L2-qat-0` `L2--0`" in text
    assert findings.main(["--check"]) == 1  # the page is another


def test_known_answers_are_compared_row_by_row() -> None:
    """Two models that differ in few rows, over two seeds with the same rows; against the formula in fp64."""
    generator = np.random.default_rng(0)
    plain = [generator.random(100) < 0.8 for _ in range(2)]
    other = [np.where(generator.random(100) < 0.05, ~one, one) for one in plain]
    records = tuple(
        record("L2", methods, seed, float(found[seed].mean()), right=to_text(found[seed]))
        for methods, found in (((), plain), (("qat",), other))
        for seed in (0, 1)
    )
    found = findings.outcome(Comparison("made", QAT, PLAIN), made(records))
    rows = np.mean([a.astype(float) - b for a, b in zip(other, plain, strict=True)], axis=0)
    pairs = [float(a.mean() - b.mean()) for a, b in zip(other, plain, strict=True)]
    expected = max(rows.std() / 10, abs(pairs[0] - pairs[1]) / 2)
    assert found.error == pytest.approx(100 * expected) and found.points == pytest.approx(100 * np.mean(pairs))
    paired = PairedAnswers.of(other[0].tolist(), plain[0].tolist())
    assert findings.over_rows([(records[2], records[0])]) == pytest.approx(paired.standard_error)
    unknown = tuple(dataclasses.replace(one, right=None) for one in records)
    assert findings.outcome(Comparison("made", QAT, PLAIN), made(unknown)).error > 1.5 * found.error


def test_equal_scores_are_no_difference() -> None:
    records = tuple(record("L2", methods, seed, 1.0) for seed in (0, 1) for methods in ((), ("qat",)))
    found = findings.outcome(Comparison("made", QAT, PLAIN), made(records))
    assert (found.points, found.error) == (0, 0)
    assert found.bears_out(0.0) and not found.bears_out("better") and not found.bears_out("worse")


def test_scores_that_are_no_shares_of_rows_have_the_error_over_pairs() -> None:
    """Correlations may be below 0."""
    scores = {((), 0): -0.1, ((), 1): 0.3, (("qat",), 0): -0.2, (("qat",), 1): 0.3}
    records = tuple(record("L2", methods, seed, score) for (methods, seed), score in scores.items())
    found = findings.outcome(Comparison("made", QAT, PLAIN), made(records, "pearson"))
    assert (found.points, found.error) == (pytest.approx(-5), pytest.approx(5))
    with pytest.raises(InputError, match="one pair of cells has no standard error: QAT and plain"):
        findings.outcome(Comparison("made", QAT, PLAIN), made(records[:1] + records[2:3], "pearson"))


def test_two_cells_for_one_place_are_refused() -> None:
    records = (record("L2", (), 0, 0.9), record("L2", (), 0, 0.8), record("L2", ("qat",), 0, 0.9))
    with pytest.raises(InputError, match="L2--0 and L2--0 are both L2, plain"):
        findings.outcome(Comparison("made", QAT, PLAIN), made(records))


def test_every_finding_has_a_comparison_that_can_fail() -> None:
    assert [one.claim for one in FINDINGS if all(each.expected is None for each in one.comparisons)] == []


def test_the_page_is_what_the_published_results_say() -> None:
    assert FINDINGS and findings.PAGE.read_text("utf-8") == findings.page()


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 872])
def test_answers_as_text(rows: int) -> None:
    right = np.random.default_rng(rows).random(rows) < 0.5
    text = to_text(right.tolist())
    assert len(text) == 2 * -(-rows // 8) and from_text(text, rows).tolist() == right.tolist()
    for wrong in (text + "00", text[:-2], "ff" * (len(text) // 2) if rows % 8 else text + "ff"):
        with pytest.raises(ValueError, match=f"are not the answers of {rows} rows"):
            from_text(wrong, rows)


def test_correlations_have_an_error_over_rows() -> None:
    records = (record("L2", (), 0, 0.6), record("L2", ("qat",), 0, 0.8))
    found = findings.outcome(Comparison("made", QAT, PLAIN), made(records, findings.CORRELATIONS))
    assert found.error == pytest.approx(100 * math.sqrt((1 - 0.36) ** 2 / 99 + (1 - 0.64) ** 2 / 99))


def test_the_error_of_a_correlation_is_that_of_samples() -> None:
    generator = np.random.default_rng(0)
    first, noise = generator.standard_normal((2, 4000, 100))
    found = [np.corrcoef(x, 0.8 * x + 0.6 * e)[0, 1] for x, e in zip(first, noise, strict=True)]
    pairs = [(record("L2", (), 0, 0.8), record("L2", (), 0, 1.0))]
    assert findings.of_correlations(pairs) == pytest.approx(np.std(found), rel=0.05)
