"""The generated reference: complete, current, and the same wherever it is made."""

import argparse
import ast
import importlib
import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import ROOT

from sparseq.cli import main as sparseq
from tools import docstrings, reference
from tools.docstrings import find, markdown, public_names

PACKAGES = [package for _, _, packages in reference.PAGES.values() for package in packages]


def test_every_page_is_what_the_source_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main(["--check"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_found_where_python_finds_it(package: str) -> None:
    module = importlib.import_module(package)
    assert public_names(package) == list(module.__all__)
    for name in module.__all__:
        definition, found = find(package, name), inspect.unwrap(getattr(module, name))
        if inspect.isclass(found) or inspect.isfunction(found):
            assert Path(inspect.getsourcefile(found) or "").samefile(definition.file)
            assert (
                isinstance(definition.node, ast.ClassDef | ast.FunctionDef) and definition.node.name == found.__name__
            )
            assert found.__doc__, f"{package}.{name} has no docstring"


@pytest.mark.parametrize("package", PACKAGES)
def test_signatures_have_python_s_parameters(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        found, definition = getattr(module, name), find(package, name)
        if not inspect.isfunction(inspect.unwrap(found)):
            continue
        signature = docstrings._signature(name, definition.node)  # type: ignore[arg-type]
        parsed = ast.parse(f"def {signature}: ...").body[0]
        assert isinstance(parsed, ast.FunctionDef)
        args = parsed.args
        shown = [arg.arg for arg in (*args.posonlyargs, *args.args, *filter(None, [args.vararg]), *args.kwonlyargs)]
        shown += [args.kwarg.arg] if args.kwarg else []
        assert shown == list(inspect.signature(found).parameters)


def test_every_option_of_every_command_is_on_the_page() -> None:
    page = (reference.FOLDER / "cli.md").read_text(encoding="utf-8")
    for name, parser in reference.parsers():
        section = page.split(f"\n## {name}\n", 1)[1].split("\n## ")[0]
        for action in parser._actions:
            if action.option_strings and not isinstance(action, argparse._HelpAction):
                assert all(f"`{option}" in section or f", {option}" in section for option in action.option_strings)
                assert action.help, f"{name} {action.option_strings} has no help"


def test_it_says_what_help_says(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        sparseq(["evaluate", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    page = reference.commands().split("\n## sparseq evaluate\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 6 and all(" ".join(row[1].split()) in said for row in rows)


def test_it_does_not_depend_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    before = reference.commands()
    for name, value in (("COLUMNS", "30"), ("FORCE_COLOR", "1"), ("LANG", "de_DE.UTF-8")):
        monkeypatch.setenv(name, value)
    assert reference.commands() == before


def test_the_formatter_leaves_the_pages_as_they_are() -> None:
    """It formats code in Markdown, too, and `make lint` wants both."""
    command = [sys.executable, "-m", "ruff", "format", "--check", str(reference.FOLDER)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stale_page_is_named_and_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(reference.FOLDER, tmp_path / "reference")
    monkeypatch.setattr(reference, "FOLDER", tmp_path / "reference")
    page = tmp_path / "reference" / "ops.md"
    page.write_text("old\n")
    assert reference.main(["--check"]) == 1 and str(page) in capsys.readouterr().err and page.read_text() == "old\n"
    assert reference.main([]) == 0 and reference.main(["--check"]) == 0
    (tmp_path / "reference" / "cli.md").unlink()
    assert reference.main(["--check"]) == 1


def test_docstrings_become_markdown() -> None:
    args = "Args:\n    x: [..., K], with\n        more.\n    a, b: 2 *s.\n\nReturns:\n    y.\n\nEnd."
    text = f"y = a * b of <x>, `c <d`.\n\n{args}"
    assert markdown(text) == (
        "y = a * b of \\<x>, `c <d`.\n\n**Args**\n\n- `x`: [..., K], with\n  more.\n- `a, b`: 2 \\*s.\n\n"
        "**Returns**\n\n- y.\n\nEnd."
    )


def test_names_that_are_not_there_are_said() -> None:
    with pytest.raises(ValueError, match=r"sparseq\.nn does not define nothing"):
        find("sparseq.nn", "nothing")
    with pytest.raises(ValueError, match="no module"):
        find("sparseq.nothing", "x")
    with pytest.raises(ValueError, match="no __all__"):
        public_names("sparseq.nn.linear")
    assert find("sparseq", "load").file == ROOT / "sparseq" / "checkpoint" / "read.py"
