"""Code that is run as in a new process: see `fresh`."""

from pathlib import Path

import pytest
from fresh import FreshProcesses


@pytest.mark.parametrize(
    ("code", "ended"),
    [("pass", 0), ("raise SystemExit(3)", 3), ("raise SystemExit('why')", 1), ("1 / 0", 1),
     ("import os; os.kill(os.getpid(), 9)", -9)],
)  # fmt: skip
def test_the_exit_code_is_that_of_a_process(fresh: FreshProcesses, code: str, ended: int) -> None:
    done = fresh.run(code)
    assert done.returncode == ended and ("ZeroDivisionError" in done.stderr) == (code == "1 / 0")


def test_nothing_is_left_for_the_next(fresh: FreshProcesses, tmp_path: Path) -> None:
    temporary = "import os, tempfile; print(tempfile.gettempdir(), os.environ.get('HOME'))"
    first = fresh.run(f"import sys, atexit, warnings; sys.first = 1; {temporary}; warnings.warn('seen'); "
                      "atexit.register(print, 'ended')", TMPDIR=str(tmp_path), HOME=None)  # fmt: skip
    assert first.stdout.split() == [str(tmp_path), "None", "ended"] and "seen" in first.stderr
    code = "import sys; print(hasattr(sys, 'first'), 'torch' in sys.modules, 'sparseq' in sys.modules)"
    assert fresh.run(code).stdout.split() == ["False", "True", "False"]
