"""The shell's completion, by the shell itself."""

import os
import pty
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
    "sparseq compress --task st": "stsb",
    "sparseq compress --methods k": "kd",
    "sparseq compress --report-to ml": "mlflow",
    "sparseq predict --file own.t": "own.toml",
}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with what `COMPLETED` names."""
    folder = tmp_path / "files"
    for name in ("runs/first", "runs/second"):
        (folder / name).mkdir(parents=True)
    (folder / "own.toml").touch()
    return folder


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash")
def test_bash_completes(scripts: dict[str, Path], files: Path) -> None:
    asked = [
        f'COMP_WORDS=({line}); COMP_CWORD={line.count(" ")}; COMPREPLY=()\n_shtab_sparseq; echo "${{COMPREPLY[@]}}"'
        for line in COMPLETED
    ]
    code = "\n".join(["set -e", f"source '{scripts['bash']}'", "complete -p sparseq", *asked])
    done = subprocess.run(["bash", "-c", code], cwd=files, capture_output=True, text=True, check=True)
    registered, *found = done.stdout.splitlines()
    assert registered.endswith(" sparseq") and dict(zip(COMPLETED, found, strict=True)) == COMPLETED


@pytest.mark.skipif(not shutil.which("zsh"), reason="there is no zsh")
def test_zsh_can_read_its_script(scripts: dict[str, Path]) -> None:
    subprocess.run(["zsh", "-n", scripts["zsh"]], check=True)


# It is installed as the docs say, and a key writes down what stands in the line.
ZSH = r"""
fpath=({functions} $fpath); autoload -Uz compinit; compinit -u -D; unsetopt zle_bracketed_paste
written() {{ print -r -- "$BUFFER" >> {typed} }}
zle -N written; bindkey '^T' written; bindkey '^U' kill-whole-line
PS1='ready> '
"""


@pytest.mark.skipif(not shutil.which("zsh"), reason="there is no zsh")
def test_zsh_completes(scripts: dict[str, Path], files: Path, tmp_path: Path) -> None:
    """At a terminal, since zsh completes nowhere else."""
    functions, typed = tmp_path / "functions", tmp_path / "typed"
    functions.mkdir()
    shutil.copy(scripts["zsh"], functions / "_sparseq")
    (tmp_path / ".zshrc").write_text(ZSH.format(functions=functions, typed=typed))
    ours, theirs = pty.openpty()
    environment = {**os.environ, "ZDOTDIR": str(tmp_path), "TERM": "dumb"}
    shell = subprocess.Popen(
        ["zsh", "-d", "-i"], cwd=files, stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while b"ready> " not in shown:
        shown += os.read(ours, 4096)
    os.write(ours, b"".join(f"{line}\t\x14\x15".encode() for line in COMPLETED) + b"exit\r")
    try:
        while os.read(ours, 4096):
            pass
    except OSError:  # the terminal is closed
        pass
    os.close(ours)
    assert shell.wait() == 0
    found = [line.rstrip().rstrip("/") for line in typed.read_text().splitlines()]
    assert found == [f"{line.rpartition(' ')[0]} {word}" for line, word in COMPLETED.items()]


def test_without_shtab_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["--print-completion", "bash"]) == 2
    assert capsys.readouterr().err == (
        "sparseq: error: --print-completion needs shtab, which is not installed: pip install 'sparseq[completion]'\n"
    )
