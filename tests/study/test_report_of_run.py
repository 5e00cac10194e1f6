"""The report of a study that was really run."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest

from sparseq.study import Options, run_study
from sparseq.study.report import write_report


@pytest.mark.slow
def test_a_study_that_was_run_has_a_report(study_file: Callable[..., Path], tmp_path: Path) -> None:
    """With one size that cannot be loaded, whose cells are listed as failed and are in no table as a number."""
    path = study_file(sizes=f"[[sizes]]\nname = 'gone'\nmodel = '{tmp_path / 'gone'}'", more="held_out_rows = 6")
    _, results = run_study(path, tmp_path / "study", Options(jobs=1, threads=1), {}, silent=True)
    files = write_report(results, tmp_path / "report", max_drop=100.0)
    tables = {path.stem: list(csv.DictReader(path.open(encoding="utf-8"))) for path in files.tables}
    assert {row["size"] for row in tables["failed"]} == {"gone"} and all(row["reason"] for row in tables["failed"])
    ratios = {row["size"]: row["QAT (times)"] for row in tables["ratios-stored-bytes"]}
    assert list(ratios) == ["L2", "L1", "gone"] and ratios["gone"] == ""
    done = [row for row in tables["task-1"] if row["size"] != "gone"]
    assert len(done) == 6 and all(
        float(row["speed-up, batch 1 (times)"]) > 0 and row["held out (points)"] for row in done
    )
    assert tables["recipe"][0]["task"] == "words"
