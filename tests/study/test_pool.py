"""The processes of a study: what they do when the study ends, and what they import."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from sparseq.study.jobs import FileReporter, Job
from sparseq.study.pool import LocalPool
from sparseq.study.worker import LOST


def test_a_process_does_not_begin_a_job_of_a_study_that_has_ended(tmp_path: Path) -> None:
    """The study ends while the process still imports: the job is in the pipe, and the pipe is closed."""
    progress = tmp_path / "state.progress"
    job = Job("cell", str(progress), recipe={"out": str(tmp_path / "out"), "model": "tiny", "task": "sst2"})
    line = json.dumps(asdict(job)) + "\n"
    for _ in range(3):  # threads race
        found = subprocess.run(
            [sys.executable, "-m", "sparseq.study.worker"], input=line, capture_output=True, text=True, timeout=120
        )
        assert (found.returncode, found.stdout) == (LOST, "")


def test_a_process_imports_what_the_study_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script in the current folder does not take the place of a library."""
    for name in ("datasets", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not the library')")
    monkeypatch.chdir(tmp_path)
    pool = LocalPool(1, 1, tmp_path)
    try:
        pool.submit(Job("cell", str(tmp_path / "state.progress"), recipe={"out": str(tmp_path / "out"), "sparsty": 1}))
        while not (outcomes := pool.wait(1.0)):
            pass
    finally:
        pool.close()
    assert outcomes[0].reason is not None and "sparsity" in outcomes[0].reason


def test_progress_that_cannot_be_written_does_not_end_a_run(tmp_path: Path) -> None:
    with FileReporter(tmp_path / "gone" / "state.progress").phase("training", 2) as phase:
        phase.update(1)
    assert not (tmp_path / "gone").exists()
