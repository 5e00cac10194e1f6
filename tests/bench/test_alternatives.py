"""The table of a study's alternatives: each beside the default of its methods, paired by seed."""

import dataclasses
from typing import Any

from bench import alternatives
from sparseq.study.records import Record, StudyResults


def record(seed: int, held_out: float, score: float, methods: tuple[str, ...] = ("qat",), **settings: Any) -> Record:
    cell = f"{methods}{settings}{seed}"
    return Record(
        cell, ("g",), "sst2", "3L", methods, seed, settings, "done", score=score, held_out_score=held_out, rows=100
    )


RECORDS = (
    dataclasses.replace(record(0, 0.9, 0.9, ()), size="6L", is_teacher=True),
    record(0, 0.80, 0.78),
    record(1, 0.84, 0.80),
    record(0, 0.84, 0.78, lr=0.1),
    record(1, 0.85, 0.84, lr=0.1),
    record(1, 0.85, 0.80, epochs=2.0),
    record(0, 0.70, 0.70, ("mp",), lr=0.1),  # the defaults with these methods are not in the study
)


def test_alternatives_stand_beside_the_default_of_their_methods_seed_by_seed() -> None:
    found = StudyResults("made", ("6L", "3L"), ("sst2",), {"sst2": "accuracy"}, RECORDS)
    lines = alternatives.alternatives(found).splitlines()
    assert lines[-1] == "Better than the default on the held-out rows by 2 standard errors: none."
    assert lines[4:-2] == [
        "| QAT |  | 82.00 |  | 79.00 |  | 2 |",
        "| QAT | lr 0.1 | 84.50 | +2.50 ± 1.50 | 81.00 | +2.00 ± 3.99 | 2 |",  # over seeds alone 2.00
        "| QAT | epochs 2 | 85.00 |  | 80.00 |  | 1 |",
    ]


def test_what_is_better_than_the_default_is_said() -> None:
    better = (record(0, 0.83, 0.5, lr=0.1), record(1, 0.87, 0.5, lr=0.1), record(0, 0.9, 0.9, scale="lsq"))
    found = StudyResults("made", ("6L", "3L"), ("sst2",), {"sst2": "accuracy"}, (*RECORDS[:3], *better))
    # Of one seed there is no standard error.
    assert alternatives.alternatives(found).endswith("by 2 standard errors: QAT lr 0.1.\n")
