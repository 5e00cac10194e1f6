"""The table of the best models: each chosen by held-out rows, among those within its limit."""

import dataclasses
from typing import Any

from bench import best_models
from sparseq.study.records import Latency, Record, StudyResults


def record(cell: str, held_out: float, mb: float, speedup: float, score: float = 0.88, **more: Any) -> Record:
    latency = {batch: Latency(8 / speedup, 1, 1, speedup, speedup, speedup) for batch in ("1", "32")}
    settings = {"methods": ("qat",), "settings": {"bits": 4}, **more}
    return Record(
        cell, ("g",), "sst2", cell, seed=0, state="done", score=score, held_out_score=held_out, rows=100,
        stored_bytes=round(mb * 1e6), latency=latency, processor="p", threads=1, **settings,
    )  # fmt: skip


TEACHER = record("T", 0.9, 90, 1, 0.9, is_teacher=True)
OTHERS = (
    record("A", 0.89, 9, 7),
    record("B", 0.88, 6, 9),
    record("C", 0.87, 5, 12, 0.95),
    record("D", 0.88, 6.1, 9),
    record("E", 0.99, 10, 7),
)
RESULTS = StudyResults(
    "made", ("T", "A", "B", "C", "D", "E"), ("sst2",), {"sst2": "accuracy"}, (TEACHER, *OTHERS),
    conditions={"published at commit": "0123456789abcdef"},
)  # fmt: skip


def test_each_limit_has_its_best_by_held_out_rows_and_one_line_for_one_model() -> None:
    lines = best_models.best_models(RESULTS).splitlines()
    assert lines[0] == "p, 1 thread; commit 0123456789"
    assert [line.split(" | ")[:2] for line in lines[4:]] == [
        ["| (the teacher)", "T, QAT, bits 4"],
        ["| at most 1/10 of the bytes", "A, QAT, bits 4"],
        # Of two with one held-out score the smaller; the best score on the reported rows chooses nothing.
        ["| at most 1/14 of the bytes, at least 8 times the speed", "B, QAT, bits 4"],
    ]
    assert "| 88.00 | -2.00 ± 4.42 | 89.00 | 9.00 (1/10.0) | 1.14 (7.0x) | 1.14 (7.0x) |" in lines[5]


def test_a_share_that_was_removed_is_said_once() -> None:
    pruned = record("P", 0.89, 5, 9, methods=("qat", "mp"), settings={"sparsity": 0.5}, sparsity_reached=0.5)
    lines = best_models.best_models(dataclasses.replace(RESULTS, records=(TEACHER, pruned))).splitlines()
    assert [line.split(" | ")[1] for line in lines[5:]] == ["P, QAT+MP, 50% removed"]


def test_a_limit_that_nothing_meets_has_no_line_and_no_teacher_no_table() -> None:
    two = dataclasses.replace(RESULTS, records=RESULTS.records[:2])
    assert best_models.best_models(two).count("\n| at ") == 1
    untimed = dataclasses.replace(RESULTS, records=(dataclasses.replace(TEACHER, latency={}),))
    assert best_models.best_models(untimed) == best_models.NO_RESULTS
