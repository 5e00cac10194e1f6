"""The program that tests at other versions: what it asks for, and its table."""

import subprocess
import sys
from pathlib import Path

import pytest

from sparseq.errors import InputError, MachineError
from tools import versions
from tools.versions import PARTS, Outcome, direct, make, outcomes, page, python_for, tools_of_tests

ROOT = Path(__file__).parents[2]

JUNIT = """<testsuites><testsuite>
<testcase file="tests/test_prune.py" name="a" time="0.5"/>
<testcase file="tests/test_prune.py" name="b" time="1.5"><failure message="no"/></testcase>
<testcase file="tests/pretrained/test_registration.py" name="c" time="2"><skipped/></testcase>
<testcase classname="tests.kernels.test_gradients" name="d" time="0"><error message="no import"/></testcase>
<testcase classname="" name="tests.nothing" time="0"><error/></testcase>
</testsuite></testsuites>"""


def test_what_it_runs_is_there() -> None:
    for path in [path for paths in PARTS.values() for path in paths]:
        assert (ROOT / path).exists(), path
    assert {line.partition(">")[0] for line in tools_of_tests()} == set(versions.TEST_TOOLS)
    assert {"torch", "numpy", "transformers", "scikit-learn", "jinja2"} <= set(direct())
    assert python_for("lowest") == "3.10" < python_for("newest")


def test_every_test_is_counted_under_its_part() -> None:
    found = outcomes(JUNIT)
    assert found["pruning and distillation"] == Outcome(passed=1, failed=["tests/test_prune.py::b"], seconds=2.0)
    assert found["transformers"] == Outcome(skipped=1, seconds=2.0)
    assert found["ops"].failed == ["tests/kernels/test_gradients::d"] and len(found["other"].failed) == 1
    text = page("lowest", "3.10.1", "torch==2.6.0\nfilelock==1\nnumpy==1.26.0\n", found)
    assert "Python 3.10.1" in text and "numpy 1.26.0, torch 2.6.0." in text
    assert "| pruning and distillation | 1 | 1 | 0 | 2 |" in text and "- `tests/test_prune.py::b`" in text


def test_uv_is_told_what_to_choose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("uv")
    asked: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command[3:])
        return subprocess.CompletedProcess(command, int(command[3] == "pip" and fails), "", "no such version")

    fails = False
    monkeypatch.setattr(versions.subprocess, "run", run)
    python = make("lowest", "3.10", tmp_path, tmp_path / "versions.txt")
    assert [line[:2] for line in asked] == [["venv", "--quiet"], ["pip", "compile"], ["pip", "install"]]
    assert "lowest-direct" in asked[1] and str(python) in asked[1]
    assert asked[1][-1] == str(ROOT / "pyproject.toml") and "pytest>=8" in asked[2]
    fails = True
    with pytest.raises(MachineError, match="uv pip compile failed: no such version"):
        make("newest", "3.13", tmp_path, tmp_path / "versions.txt")
    monkeypatch.setitem(sys.modules, "uv", None)
    with pytest.raises(InputError, match="needs uv"):
        make("newest", "3.13", tmp_path, tmp_path / "versions.txt")
