"""Code that is run as in a new process: see `fresh`."""

from pathlib import Path

import fresh as fresh_module
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
    assert (done.stderr == "why\n") == ("why" in code)


def test_nothing_is_left_for_the_next(fresh: FreshProcesses, tmp_path: Path) -> None:
    temporary = "import os, tempfile; print(tempfile.gettempdir(), os.environ.get('HOME'))"
    first = fresh.run(f"import sys, atexit, warnings; sys.first = 1; {temporary}; warnings.warn('seen'); "
                      "atexit.register(print, 'ended')", TMPDIR=str(tmp_path), HOME=None)  # fmt: skip
    assert first.stdout.split() == [str(tmp_path), "None", "ended"] and "seen" in first.stderr
    code = "import sys; print(hasattr(sys, 'first'), 'torch' in sys.modules, 'sparseq' in sys.modules)"
    assert fresh.run(code).stdout.split() == ["False", "True", "False"]


def test_threads_are_waited_for(fresh: FreshProcesses) -> None:
    code = "import threading, time\ndef late():\n    time.sleep(0.3)\n    print('late')\n"
    code += "import atexit; atexit.register(print, 'ended'); threading.Thread(target=late).start()"
    done = fresh.run(code)
    assert (done.returncode, done.stdout.split()) == (0, ["late", "ended"])


@pytest.mark.parametrize("end", ["sys.{}.close()", "sys.{} = None"])
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_closed_streams_are_no_failure_of_the_server(fresh: FreshProcesses, stream: str, end: str) -> None:
    done = fresh.run(f"import sys; {end.format(stream)}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_output_that_cannot_be_written_is_a_failure(fresh: FreshProcesses) -> None:
    buffered = "import os, sys; sys.stdout = open(1, 'w', closefd=False); "  # whatever PYTHONUNBUFFERED is
    assert fresh.run(buffered + "print('lost'); os.close(1)").returncode == 120  # as of a Python of its own


def test_code_runs_in_the_folder_of_the_test(
    fresh: FreshProcesses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert fresh.run("import os; print(os.getcwd())").stdout == f"{tmp_path}\n"


def test_what_is_read_is_not_the_servers(fresh: FreshProcesses) -> None:
    assert fresh.run("import os, sys; print(repr(sys.stdin.read()), os.read(0, 1))").stdout == "'' b''\n"


def test_outputs_are_not_those_of_the_former_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a process that ends before it opens them."""
    killed = "import sys\nfor line in sys.stdin: print(-9, flush=True)"
    monkeypatch.setattr(fresh_module, "SERVER", ("-c", killed))
    processes = FreshProcesses(tmp_path)
    (tmp_path / "stdout").write_text("former")
    (tmp_path / "stderr").write_text("former")
    try:
        with pytest.raises(FileNotFoundError):
            processes.run("pass")
    finally:
        processes.close()
