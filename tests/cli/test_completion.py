"""The shell's completion, by the shell itself."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sparseq.cli import main
from sparseq.cli.completion import SHELLS

pytest.importorskip("shtab")


@pytest.fixture
def scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Path]:
    """The script of each shell, in a file."""
    for shell in SHELLS:
        with pytest.raises(SystemExit) as end:
            main(["--print-completion", shell])
        assert end.value.code == 0
        (tmp_path / shell).write_text(capsys.readouterr().out)
    return {shell: tmp_path / shell for shell in SHELLS}


COMPLETED = {
    "sparseq comp": "compress",
    "sparseq --print-completion z": "zsh",
    "sparseq compress --crit": "--criterion",
    "sparseq compress --criterion f": "fisher",
    "sparseq compress --bits 1": "16",
    "sparseq study rep": "report",
    "sparseq predict runs/fi": "runs/first",
    "sparseq compress --recipe own.t": "own.toml",
    "sparseq compress --teacher runs/s": "runs/second",
}


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_bash_completes(scripts: dict[str, Path], tmp_path: Path) -> None:
    for folder in ("runs/first", "runs/second"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "own.toml").touch()
    asked = [
        f'COMP_WORDS=({line}); COMP_CWORD={line.count(" ")}; COMPREPLY=()\n_shtab_sparseq; echo "${{COMPREPLY[@]}}"'
        for line in COMPLETED
    ]
    code = "\n".join(["set -e", f"source '{scripts['bash']}'", "complete -p sparseq", *asked])
    done = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    registered, *found = done.stdout.splitlines()
    assert registered.endswith(" sparseq") and dict(zip(COMPLETED, found, strict=True)) == COMPLETED


@pytest.mark.skipif(not shutil.which("zsh"), reason="there is no zsh")
def test_zsh_can_read_its_script(scripts: dict[str, Path]) -> None:
    subprocess.run(["zsh", "-n", scripts["zsh"]], check=True)


def test_without_shtab_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["--print-completion", "bash"]) == 2
    assert capsys.readouterr().err == (
        "sparseq: error: --print-completion needs shtab, which is not installed: pip install 'sparseq[completion]'\n"
    )
