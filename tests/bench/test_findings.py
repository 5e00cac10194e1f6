"""Findings: differences with their errors, and claims that fail when the results do not bear them out."""

import math
from typing import Any

import pytest

from bench.studies import findings
from bench.studies.claims import FINDINGS, PLAIN, QAT, Comparison, Finding
from sparseq.errors import InputError
from sparseq.study.records import Latency, Record, StudyResults


def record(size: str, methods: tuple[str, ...], seed: int, score: float, **more: Any) -> Record:
    settings = dict[str, Any](more.pop("settings", {}))
    return Record(
        f"{size}-{'+'.join(methods)}-{seed}", ("g",), "sst2", size, methods, seed, settings, "done", score=score,
        rows=100, stored_bytes=100 if methods else 400, **more,
    )  # fmt: skip


def faster(times: float, processor: str = "p") -> dict[str, Any]:
    return {"latency": {"32": Latency(1, 1, 1, times, times, times)}, "processor": processor}


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
    assert found.says == "no difference"


def test_pairs_that_differ_more_than_their_rows_do() -> None:
    results = StudyResults(
        "made", ("L2",), ("sst2",), {"sst2": "accuracy"},
        tuple(record("L2", methods, seed, score) for seed in (0, 1) for methods, score in
              (((), 0.9), (("qat",), 0.9 - 0.4 * seed))),
    )  # fmt: skip
    found = findings.outcome(Comparison("made", QAT, PLAIN), results)
    assert found.error == pytest.approx(20) and found.points == pytest.approx(-20)


def test_sizes_that_are_compared_with_others() -> None:
    found = findings.outcome(Comparison("made", QAT, PLAIN, sizes=(("L2", "L1"),)), RESULTS)
    assert found.points == pytest.approx(8) and len(found.pairs) == 1 and found.faster is None


def test_nothing_to_compare_is_said() -> None:
    with pytest.raises(InputError, match="no seed of the study made has both QAT and plain"):
        findings.outcome(Comparison("made", QAT, PLAIN, task="stsb"), RESULTS)


def test_a_claim_that_does_not_hold_stops_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "results_of", lambda name: RESULTS)
    for expected in ("better", "worse"):
        with pytest.raises(InputError, match=f"claim 1 .* expects '{expected}' .* the results say 'no difference'"):
            findings.page([Finding("It differs", (Comparison("made", QAT, PLAIN, expected),))])
    text = findings.page([Finding("It is the same", (Comparison("made", QAT, PLAIN, "no difference"),))])
    assert "| QAT | plain | -1.67 | 2.82 | 3 | 4.00 | 4.00 | `L2-qat-0` `L2--0`" in text


def test_the_page_is_what_the_published_results_say() -> None:
    assert FINDINGS and findings.PAGE.read_text("utf-8") == findings.page()
