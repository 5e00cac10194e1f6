"""Nothing that a file or a user says acts on the terminal: hostile text through everything that prints."""

import ast
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table
from rich.text import Text
from torch import nn

from sparseq import size_report
from sparseq.checkpoint import save
from sparseq.cli import main
from sparseq.demo.__main__ import main as demo_command
from sparseq.demo.comparison import ModelRow, bars, comparison_table
from sparseq.downloads import Download, download_dir, fetch
from sparseq.errors import InputError, MachineError
from sparseq.nn import convert, pack
from sparseq.terminal import LONGEST_MESSAGE, say, say_error, shown, write
from sparseq.train import Recipe, RunResult
from sparseq.train.folder import RECIPE
from sparseq.train.progress import Reporter, SafeConsole
from sparseq.train.summary import show_result
from tests.conftest import sentences, write_rows

ROOT = Path(__file__).parent.parent
HOSTILE = "a\x1b[31m\x1b]0;title\x07\r\x9b2J\x08b\u202eevil\u2066\u2028c[red]d[/red]:smile:\x00\x85\x7fe"
ACTING = ("Cc", "Cs", "Zl", "Zp")


def assert_harmless(text: str, *, tabs: bool = False) -> None:
    allowed = "\n\t" if tabs else "\n"
    found = [c for c in text if c not in allowed and (unicodedata.category(c) in ACTING or c in "\u202e\u2066\ufeff")]
    assert not found, f"{found!r} in {text!r}"


def test_only_what_acts_is_escaped() -> None:
    assert shown("plain, grüße 你好 👩‍👩‍👧 می‌خواهم \\x1b") == "plain, grüße 你好 👩‍👩‍👧 می‌خواهم \\x1b"
    assert shown("a\nb\tc\x1b\u202e\ud800\U000e0041") == r"a\nb\tc\x1b\u202e\ud800\U000e0041"
    assert shown("a\nb\r", lines=True) == "a\nb\\r"
    assert shown("x" * 50, limit=10) == "xxxxxxx..." and shown(3) == "3"
    assert_harmless(shown("".join(map(chr, range(0x110000)))))


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1", "cp1252"])
def test_what_the_stream_cannot_encode_is_escaped(encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="strict")
    write(shown("é你\ud800") + "\n", stream)
    assert raw.getvalue().decode(encoding).startswith(("é你", "\\xe9", "é\\u4f60"))


def test_an_error_is_one_line_of_bounded_length(capsys: pytest.CaptureFixture[str]) -> None:
    say_error("a\n  b\x1b " + "x" * 10**6)
    said = capsys.readouterr().err
    assert said.startswith("sparseq: error: a b\\x1b x") and said.count("\n") == 1 and len(said) < LONGEST_MESSAGE + 50
    assert said.endswith("...\n")


RENDERABLES: dict[str, Callable[[], Any]] = {
    "string": lambda: HOSTILE,
    "text": lambda: Text(HOSTILE),
    "table": lambda: hostile_table(),
    "comparison": lambda: comparison_table([row(HOSTILE), row(f"{HOSTILE}2")], HOSTILE),
    "bars": lambda: bars([row(HOSTILE), row("x")]),
    "object": lambda: Exception(HOSTILE),
}


def hostile_table() -> Table:
    table = Table(title=HOSTILE, caption=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(Text(HOSTILE))
    return table


def row(name: str) -> ModelRow:
    return ModelRow(name, 0.5, 10, 10, 10, {1: 1.0})


@pytest.mark.parametrize("kind", RENDERABLES)
def test_the_console_prints_text_as_text(kind: str) -> None:
    stream = io.StringIO()
    SafeConsole(file=stream, width=300).print(RENDERABLES[kind]())
    assert_harmless(stream.getvalue())
    assert "[red]d[/red]:smile:" in stream.getvalue() and "\\x1b[31m" in stream.getvalue()


def test_the_consoles_own_styles_and_progress_remain() -> None:
    stream = io.StringIO()
    console = SafeConsole(file=stream, force_terminal=True, width=100, color_system="standard")
    console.print(Text("bold", style="bold"), f"{HOSTILE}")
    assert "\x1b[1mbold\x1b[0m" in stream.getvalue()
    rest = stream.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert_harmless(rest)
    reporter = Reporter()
    reporter.errors = SafeConsole(file=stream, force_terminal=True, width=200, color_system=None)
    stream.truncate(0)
    with reporter.phase(HOSTILE, total=2) as phase:
        phase.update(1, HOSTILE)
        reporter.bar.refresh()  # type: ignore[union-attr]
    reporter.say(HOSTILE)
    # What remains are rich's own movements of the cursor.
    assert_harmless(re.sub(r"\x1b\[[0-9?]*[A-Zhl]|\r", "", stream.getvalue()).replace("\x00", ""))
    assert "[red]d[/red]:smile:" in stream.getvalue()


def test_layers_and_classes_of_any_name(capsys: pytest.CaptureFixture[str]) -> None:
    kind = type("Odd\x1b[31m\u202e", (nn.Linear,), {})
    model = nn.ModuleDict({HOSTILE.replace(".", ""): nn.Linear(3, 3), "n" * 900: kind(2, 2)})
    assert_harmless(str(size_report(model)))
    assert max(map(len, str(size_report(model)).splitlines())) < 400


@pytest.fixture(scope="module")
def hostile_run(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose two classes have hostile names, in a folder that has one too."""
    folder = tmp_path_factory.mktemp("hostile")
    rows = [{**one, "label": HOSTILE.replace("\x00", "") if one["label"] else "good"} for one in sentences(24, 0)]
    files = [str(write_rows(folder / f"{name}.csv", rows)) for name in ("train", "dev")]
    out = folder / "out\x1b[31m[red]"
    command = ["compress", "--model", str(tiny_model_dir), "--methods", "qat", "--epochs", "1", "--batch-size", "8"]
    command += ["--train-file", files[0], "--validation-file", files[1], "--out", str(out), "--max-length", "16"]
    assert main(command) == 0
    return out


def command_lines(run: Path) -> dict[str, list[str]]:
    return {
        "predict": ["predict", str(run), f"the film {HOSTILE}".replace("\x00", ""), "good"],
        "evaluate": ["evaluate", str(run)],
        "size": ["size", str(run)],
        "compress, finished": [
            "compress", "--recipe", str(run / RECIPE), "--out", str(run),
        ],
        "compress, another recipe": ["compress", "--recipe", str(run / RECIPE), "--seed", "7", "--out", str(run)],
        "no such folder": ["predict", f"/{HOSTILE}".replace("\x00", ""), "x"],
        "unknown command": [HOSTILE],
        "unknown flag": ["compress", f"--{HOSTILE}"],
        "bad value": ["compress", "--epochs", HOSTILE],
        "unknown method": ["compress", "--model", "m", "--out", "o", "--task", "sst2", "--methods", HOSTILE],
        "unknown task": ["compress", "--model", "m", "--out", "o", "--methods", "none", "--task", HOSTILE],
        "unknown model": ["compress", "--model", f"/{HOSTILE}", "--out", "o", "--methods", "none", "--task", "sst2"],
        "unknown column": [
            "evaluate", str(run), "--validation-file", str(run.parent / "dev.csv"), "--text-columns", HOSTILE,
        ],
        "unseen label": ["evaluate", str(run), "--validation-file", str(run.parent / "odd.csv")],
        "half a pair": ["predict", str(run), "\udcff"],
    }  # fmt: skip


@pytest.mark.parametrize("name", command_lines(Path("x")))
def test_no_command_lets_a_control_byte_through(
    name: str, hostile_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_rows(hostile_run.parent / "odd.csv", [{"sentence": HOSTILE, "label": f"{HOSTILE}!"}])
    capsys.readouterr()
    code = main(command_lines(hostile_run)[name])
    said = capsys.readouterr()
    assert code == (0 if name in ("predict", "evaluate", "size", "compress, finished") else 2), said.err
    assert said.out or said.err
    assert_harmless(said.out, tabs=True)
    assert_harmless(said.err)
    if code:
        assert said.err.count("\n") == 1 and len(said.err) < LONGEST_MESSAGE + 50
    if name == "predict":
        assert [len(line.split("\t")) for line in said.out.splitlines()] == [3, 3]


def test_stdin_of_another_encoding(
    hostile_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), encoding="utf-8"))
    assert main(["predict", str(hostile_run)]) == 2
    assert "line 1 of stdin is not UTF-8 text" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.StringIO("a\x1b[31m\u202e\n"))
    assert main(["predict", str(hostile_run)]) == 0
    assert_harmless(capsys.readouterr().out, tabs=True)


@pytest.mark.parametrize("name", ["task", "methods", "pattern", "metrics", "out"])
def test_a_result_of_altered_metrics(name: str, hostile_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = RunResult.from_folder(hostile_run).as_dict()
    other: Any = {"methods": (HOSTILE,), "metrics": {HOSTILE: 0.5}}.get(name, HOSTILE)
    show_result(RunResult(**{**values, "sparsity": 0.5, name: other}), Recipe(model="m", out="o"))
    said = capsys.readouterr().out
    assert_harmless(said)
    assert "\\x1b[31m" in said


def test_altered_files_in_messages(hostile_run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = pack(convert(nn.Sequential(nn.Linear(4, 4))))
    save(model, tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    for old, new in ((b"PackedLinear", b"\\u001b[31mxxx"), (b'"bits\\":8', b'"bits\\":"'), (b"dense", b"\\u202")):
        (tmp_path / "model.safetensors").write_bytes(whole.replace(old, new))
        assert main(["size", str(tmp_path)]) == 2
        assert_harmless(capsys.readouterr().err)
    metrics = json.loads((hostile_run / "metrics.json").read_text())
    (tmp_path / "metrics.json").write_text(json.dumps({**metrics, HOSTILE: 1}))
    assert main(["predict", str(tmp_path), "x"]) == 2
    assert_harmless(capsys.readouterr().err)


def test_the_demo_and_the_fetching_of_downloads(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert demo_command([f"--{HOSTILE}"]) == 2
    assert demo_command(["--size", HOSTILE]) == 2
    (tmp_path / "file").touch()
    assert demo_command(["--size", "ci", "--out", str(tmp_path / "file" / "x")]) == 2
    monkeypatch.setenv("SPARSEQ_CACHE", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, "", HOSTILE))
    wanted = Download(HOSTILE, "toy", "1.0", "toy-1.0.tar.gz", 1, "0" * 64, ("toy-1.0/",), "0" * 64)
    download_dir(wanted).mkdir()  # its content is not the wanted one
    with pytest.raises(InputError, match="pip could not fetch") as caught:
        fetch(wanted)
    say_error(caught.value)
    said = capsys.readouterr()
    assert said.err.count("\n") == 6
    assert_harmless(said.out + said.err)


def test_say(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\tb", 3, "c\nd", separator="\t")
    assert capsys.readouterr().out == "a\\tb\t3\tc\\nd\n"


PRINTING = {"print", "Console", "ArgumentParser", "input"}


@pytest.mark.parametrize("path", sorted(ROOT.glob("sparseq/**/*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_prints_past_the_terminal_module(path: Path) -> None:
    """Whatever prints goes through sparseq.terminal or the console, so that it is escaped."""
    if path.name in ("terminal.py", "progress.py"):
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            name = called.rpartition(".")[2]
            assert name not in PRINTING or called.endswith(".print"), f"line {node.lineno}: {called}"
            assert not re.fullmatch(r"sys\.(__)?std(out|err)(__)?(\.buffer)?\.write", called), f"line {node.lineno}"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
def test_an_output_that_takes_no_more_is_named() -> None:
    stream = open("/dev/full", "w")  # noqa: SIM115 (closing it fails once more)
    with pytest.raises(
        MachineError, match=r"^cannot write to /dev/full \(No space left on device\): redirect it to a place"
    ):
        write("text\n", stream)
    with contextlib.suppress(OSError):
        stream.close()
