"""Every program of bench and tools ends with one sentence where its input is wrong."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.common import ROOT
from bench.program import run_program
from sparseq import InputError
from sparseq.errors import MachineError


@pytest.mark.parametrize("kind", [InputError, MachineError])
def test_a_wrong_input_is_one_sentence(kind, capsys):
    def main() -> int:
        raise kind("there is no such folder")

    with pytest.raises(SystemExit) as ended:
        run_program(main)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "sparseq: error: there is no such folder\n"


def test_an_interruption_is_silent(capsys):
    def main() -> int:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        run_program(main)
    assert ended.value.code == 130 and capsys.readouterr().err == ""


def programs() -> list[Path]:
    files = [file for folder in ("bench", "tools") for file in (ROOT / folder).rglob("*.py")]
    return [file for file in files if '__name__ == "__main__"' in file.read_text(encoding="utf-8")]


@pytest.mark.parametrize("file", programs(), ids=lambda file: str(file.relative_to(ROOT)))
def test_every_program_ends_so(file):
    text = file.read_text(encoding="utf-8")
    assert re.search(r"^    run_program\(main\)\n\Z", text, re.MULTILINE), f"{file} ends otherwise"


def test_a_study_of_an_absent_folder():
    command = [sys.executable, "-m", "bench.studies.model", "no-such-folder"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("sparseq: error: there is no folder no-such-folder")
