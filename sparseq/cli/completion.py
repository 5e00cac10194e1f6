"""`sparseq --print-completion SHELL`: a script for the shell that completes commands, options, choices and paths."""

import argparse
from collections.abc import Iterator
from typing import Any

from sparseq.errors import InputError
from sparseq.extras import install
from sparseq.terminal import write
from sparseq.train.recipe import ALL_METHODS, METHODS, PATH_SETTINGS, Recipe

SHELLS = ("bash", "zsh")

_FOLDERS, _FILES = ("DIR", "FOLDER"), ("FILE",)


class PrintCompletion(argparse.Action):
    """Prints the script of the whole parser, and ends the program. It needs shtab."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, shell: Any, *_: Any) -> None:
        write(script(parser, shell))
        parser.exit()


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for one of the `SHELLS`. Raises InputError if shtab is not installed."""
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise InputError(f"--print-completion needs shtab, which is not installed: {install('completion')}") from error
    from sparseq.tasks.spec import GLUE
    from sparseq.train.trackers import TRACKERS

    # Offered for settings that take more than these.
    words = {"task": list(GLUE), "methods": [",".join(METHODS), *ALL_METHODS, "none"], "report_to": list(TRACKERS)}
    settings = Recipe.settings()
    for action in _actions(parser):
        if action.metavar in _FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.metavar in _FILES or action.dest in PATH_SETTINGS:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.dest in words:
            action.choices = words[action.dest]
        elif action.choices is None and action.dest in settings and settings[action.dest].choices:
            action.choices = [str(choice) for choice in settings[action.dest].choices]
    text: str = shtab.complete(parser, shell)
    return text if text.endswith("\n") else text + "\n"


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The actions of a parser and of its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
        else:
            yield action
