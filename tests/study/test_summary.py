"""What a study's run prints at its end."""

import pytest
from made_study import record, study

from sparseq.study.records import FAILED
from sparseq.study.runner import Summary
from sparseq.study.summary import show_summary


def test_the_end_counts_all_cells_also_those_that_were_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Of 1,003 cells the run had three: others had ended before, and the rest it was not asked for."""
    done = [record(seed=seed, score=0.8) for seed in range(2)]
    missing = [record(seed=seed) for seed in range(2, 1002)]
    failed = record(seed=1002, state=FAILED)
    found = Summary(1, {failed.cell: "it was too big"}, seconds=61.0)
    show_summary(found, study(*done, *missing, failed), "out")
    said = " ".join(capsys.readouterr().out.split())
    assert "made-up: 2 of 1,003 cells done, 1 failed, 1,000 missing, 61 s" in said
    assert f"{failed.cell}: it was too big" in said and "tries the failed cells again" in said


def test_a_study_that_is_complete_has_nothing_missing(capsys: pytest.CaptureFixture[str]) -> None:
    show_summary(Summary(1), study(record(score=0.8)), "out")
    said = " ".join(capsys.readouterr().out.split())
    assert "made-up: 1 of 1 cells done, 0 s" in said and "missing" not in said and "failed" not in said
