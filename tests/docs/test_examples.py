"""The code of the tutorial and the how-to pages runs, in its order, in a folder with the tests' small models.

A size or an id of a model is a folder of that name there, so that nothing is downloaded. Commands that need what a test
cannot have (several processes, a GPU, an installation) are parsed.
"""

import argparse
import importlib
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pages import ROOT, Block, blocks

from bench.__main__ import parser as bench_parser
from sparseq.cli import main
from sparseq.cli.entry import command_parser

DOCS = ROOT / "docs"
PAGES = sorted([*(DOCS / "tutorial").glob("*.md"), *(DOCS / "how-to").glob("*.md"), ROOT / "README.md"])
# An export takes seconds.
MARKS = {"onnx": pytest.mark.slow}
MODELS = ("tiny", "small", "base", "google/bert_uncased_L-4_H-512_A-8")


@pytest.fixture
def workplace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model_dir: Path, tiny_csv: tuple[Path, Path]
) -> Path:
    """The current folder of a page: models and data under the names that pages use."""
    for name in MODELS:
        shutil.copytree(tiny_model_dir, tmp_path / name)
    for path in tiny_csv:
        header, rest = path.read_text(encoding="utf-8").split("\n", 1)
        assert header == "sentence,label"
        (tmp_path / path.name).write_text(f"review,label\n{rest}", encoding="utf-8")
    published = tmp_path / "bench" / "results" / "studies"
    published.mkdir(parents=True)
    shutil.copy(ROOT / published.relative_to(tmp_path) / "minilm-best.json", published)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("page", [pytest.param(page, marks=MARKS.get(page.stem, ()), id=page.stem) for page in PAGES])
def test_the_code_of_a_page_runs(page: Path, workplace: Path) -> None:
    torch.manual_seed(0)
    names: dict[str, object] = {"__name__": "page"}
    found = blocks(page)
    assert {block.language for block in found} <= {"python", "sh", "text", ""}
    assert any(block.language in ("python", "sh") for block in found)
    for block in found:
        if block.language == "python":
            exec(compile(block.code, f"{page}:{block.line}", "exec"), names)
        elif block.language == "sh":
            run_shell(block, f"{page}:{block.line}")


def run_shell(block: Block, where: str) -> None:
    """Runs the commands of sparseq, and checks the others."""
    for line in block.code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["sparseq"] and words[1] != "compress":
            assert main(words[1:]) == 0, f"{where}: {line}"
        elif words[:1] == ["sparseq"]:
            assert main(smaller(words[1:])) == 0, f"{where}: {line}"
        elif words:
            check(words, f"{where}: {line}")


def smaller(words: list[str]) -> list[str]:
    """The command as short as it can be: an option that is given twice has the last value."""
    return [*words, "--epochs", "1", "--max-train-rows", "32", "--max-length", "16", "--quiet"]


def check(words: list[str], where: str) -> None:
    """Of a command that is not run: what it names exists, and its options are known."""
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word} <= set(targets), where
    elif words[0] == "torchrun":
        place = words.index("-m")
        assert words[place + 1] == "sparseq.cli", where
        command_parser().parse_args(words[place + 2 :])
    elif words[:2] == ["python", "-m"] and words[2] == "bench":
        bench_parser().parse_args(words[3:])
    elif words[:2] == ["python", "-m"] and words[2].startswith(("bench.", "tools.", "sparseq")):
        parsed(words[2], words[3:])
    else:
        assert words[0] in ("pip", ".", "python3", "git"), where


def parsed(module: str, arguments: list[str]) -> argparse.Namespace:
    """What the program's own parser makes of the arguments; the program goes no further."""

    class ParsedError(Exception):
        pass

    def parse_args(parser: argparse.ArgumentParser, given: list[str] | None = None) -> argparse.Namespace:
        found = original(parser, arguments)
        raise ParsedError(found)

    original = argparse.ArgumentParser.parse_args
    program: Callable[[list[str]], int] = importlib.import_module(module).main
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        patch.setattr(sys, "argv", [module, *arguments])
        with pytest.raises(ParsedError) as caught:
            program(arguments)
    found = caught.value.args[0]
    assert isinstance(found, argparse.Namespace)
    return found


def test_a_block_that_is_wrong_fails(workplace: Path) -> None:
    with pytest.raises(AssertionError, match="compress"):
        run_shell(Block("sh", "sparseq compress --modle tiny --out o\n", 1), "page")
    for wrong in ("make nothing", "python -m tools.nothing", "rm -rf x"):
        with pytest.raises((AssertionError, ModuleNotFoundError)):
            check(shlex.split(wrong), "page")
    for wrong in ("python -m tools.reference --nothing", "python -m bench run int8_linear --nothing"):
        with pytest.raises(SystemExit):
            check(shlex.split(wrong), "page")
