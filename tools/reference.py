"""Writes the pages of docs/reference: public names with signature and docstring, and every command's options.

    python -m tools.reference            rewrites the pages
    python -m tools.reference --check    exits with 1 if a page differs from what the source says

Signatures and docstrings are read from the source, and options from the parsers, not from their help texts. So the
pages do not depend on the version of Python, the terminal, or what is installed beside sparseq.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from bench.program import run_program
from tools.docstrings import ROOT, Definition, described, find, public_names

FOLDER = ROOT / "docs" / "reference"
GENERATED = "<!-- Written by `python -m tools.reference`. Change the docstring or the help text instead. -->\n"

# Page -> (title, what it is, packages whose public names are on it).
PAGES = {
    "layers": (
        "Layers and models",
        "Convert a model, train it, pack it, save and load it. "
        "[The guide to your own model](../how-to/own-model.md) says what happens to hooks, ties and other attachments.",
        ("sparseq", "sparseq.nn", "sparseq.onnx"),
    ),
    "training": (
        "Pruning, distillation, augmentation and runs",
        "What `sparseq compress` uses, for [a training loop of your own](../how-to/own-training-loop.md).",
        ("sparseq.prune", "sparseq.distill", "sparseq.augment", "sparseq.train"),
    ),
    "transformers": (
        "With transformers",
        "Loading and converting by `from_pretrained`, and training with any `transformers.Trainer`. "
        "[Models](../how-to/transformers.md), [training](../how-to/own-training-loop.md).",
        ("sparseq.hf",),
    ),
    "studies": (
        "Studies",
        "What `sparseq study` uses. [How to run one](../how-to/studies.md).",
        ("sparseq.study", "sparseq.study.report"),
    ),
    "ops": (
        "Ops",
        "The functions of `sparseq_kernels`. Each op is also `torch.ops.sparseq.<name>`, with the same arguments. N is "
        "the number of outputs, K the number of inputs; a weight is [N, K]. "
        "[Numbers](../explanation/numbers.md) defines "
        "scales and rounding.",
        ("sparseq_kernels",),
    ),
    "formats": (
        "Storage formats",
        "How a packed weight is stored, and what a format has to define. "
        "[An introduction](../explanation/formats.md); [how to add one](../../CONTRIBUTING.md#add-a-format).",
        ("sparseq_kernels.formats",),
    ),
}


def in_full(package: str, definition: Definition) -> str:
    """A public name as the repository's pages show it."""
    return described(definition, 3)


def page(name: str, show: Callable[[str, Definition], str] = in_full) -> str:
    """The text of a page of public names. show(package, definition): what stands there for a name."""
    title, about, packages = PAGES[name]
    parts = [f"# {title}\n", GENERATED, f"{about}\n"]
    known: set[tuple[Path, int]] = set()
    for package in packages:
        parts.append(f"## `{package}`\n")
        again = []
        for public in public_names(package):
            definition = find(package, public)
            place = (definition.file, definition.node.lineno)
            if place in known:
                again.append(f"`{public}`")
            else:
                known.add(place)
                parts.append(show(package, definition))
        if again:
            parts.append(f"Also here: {', '.join(again)}.\n")
    return "\n".join(parts)


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command with its parser."""
    from bench.__main__ import parser as of_bench
    from sparseq.cli.entry import command_parser as of_sparseq

    for parser in (of_sparseq(), of_bench()):
        yield from _with_commands(parser.prog, parser)


def _with_commands(prog: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield prog, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield from _with_commands(f"{prog} {name}", command)


def commands() -> str:
    """The text of the page of commands."""
    about = (
        "The commands with all their options. `--help` prints the same. Exit codes: 0 is success, 2 wrong input, "
        "3 a score that dropped by more than `--max-drop` allows, 1 a failure of the machine such as a full disk, "
        "130 an interrupt. An error is one line on stderr.\n"
    )
    return "\n".join(["# Commands\n", GENERATED, about, *(_command(name, parser) for name, parser in parsers())])


def _command(name: str, parser: argparse.ArgumentParser) -> str:
    parts = [f"## {name}"]
    if parser.description:
        parts.append(_cell(parser.description))
    for group in parser._action_groups:
        rows = [row for action in group._group_actions for row in _rows(action)]
        if rows:
            commands = isinstance(group._group_actions[0], argparse._SubParsersAction)
            known = {"positional arguments": "Commands" if commands else "Arguments"}
            title = known.get(group.title or "") or (group.title or "").capitalize()
            parts.append(f"**{title}**")
            parts.append("\n".join(["| option | meaning |", "| --- | --- |", *rows]))
    if parser.epilog:
        parts.append(f"```text\n{parser.epilog.strip()}\n```")
    return "\n\n".join(parts) + "\n"


def _rows(action: argparse.Action) -> Iterator[str]:
    if isinstance(action, argparse._SubParsersAction):
        for choice in action._choices_actions:
            yield f"| `{choice.dest}` | {_cell(choice.help or '')} |"
        return
    if isinstance(action, argparse._HelpAction):
        return
    if isinstance(action, argparse._VersionAction):  # Its help is Python's.
        yield "| `--version` | print the version |"
        return
    choices = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
    value = action.metavar or choices
    shown = value if isinstance(value, str) else " ".join(value)
    if action.nargs == "?":
        shown = f"[{shown}]"
    names = list(action.option_strings) or [str(action.metavar or action.dest)]
    takes = bool(action.option_strings) and action.nargs != 0
    text = ", ".join(names) + (f" {shown}" if takes else "")
    # Python before 3.13 adds the default to the help of a switch with a negation; ours says it already.
    about = (action.help or "").replace(" (default: %(default)s)", "").replace("%%", "%")
    yield f"| `{_cell(text, code=True)}` | {_cell(about)} |"


def _cell(text: str, code: bool = False) -> str:
    text = " ".join(text.split()).replace("|", "\\|")
    return text if code else text.replace("<", "&lt;").replace("*", "\\*")


def pages() -> dict[Path, str]:
    """Every generated page with its text."""
    return {FOLDER / f"{name}.md": page(name) for name in PAGES} | {FOLDER / "cli.md": commands()}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Writes docs/reference from docstrings and options.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a page is stale")
    given = parser.parse_args(argv)
    stale = 0
    for path, text in pages().items():
        if given.check and (not path.is_file() or path.read_text(encoding="utf-8") != text):
            print(f"{path} is not what the source says: run python -m tools.reference", file=sys.stderr)
            stale = 1
        if not given.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return stale


if __name__ == "__main__":
    run_program(main)
