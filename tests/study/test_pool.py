"""The processes of a study: what they do when the study ends, and what they import."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from sparseq.study.jobs import Job
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
