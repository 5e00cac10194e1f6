"""Runs one command: parses its arguments and returns its exit code; every error is one sentence on stderr."""

import argparse
import os
import sys
from collections.abc import Sequence

import sparseq
from sparseq.errors import RAISED_ELSEWHERE, InputError, MachineError
from sparseq.extras import naming_extra
from sparseq.failures import memory_kept
from sparseq.terminal import Parser, say, say_error
from sparseq.train.settings import flag
from sparseq.train.unknown import meant

from . import compress, evaluate, export, predict, size, study
from .completion import SHELLS, PrintCompletion
from .exits import BAD_INPUT, FAILED, INTERRUPTED


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    0: success. 2: bad input. 3: the score dropped by more than --max-drop. 1: the machine failed, for example a full
    disk. 130: interrupted. Errors are one sentence on stderr.
    """
    try:
        with naming_extra():
            arguments = _parsed(argv)
        with naming_extra(arguments.extra), memory_kept("let it have more, or give it less at once"):
            return int(arguments.run(arguments))
    except InputError as error:
        return _fail(error)
    except KeyboardInterrupt:
        say("sparseq: interrupted", error=True)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the output has closed it
        _leave_output()
        return 0
    except MachineError as error:
        _leave_output()
        _fail(error)
        return FAILED
    except OSError as error:  # a full disk or a failing device; the input is not the cause
        _leave_output()
        _fail(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
        return FAILED
    finally:
        torch = sys.modules.get("torch")  # not imported here: it takes a second, and --help does not need it
        if torch is not None and torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _leave_output() -> None:
    """Makes the interpreter's final flush of stdout succeed if stdout accepts no more data."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(error: object) -> int:
    if RAISED_ELSEWHERE not in getattr(error, "__notes__", ()):
        say_error(error)
    return BAD_INPUT


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """The parsed arguments. Raises InputError for an unknown argument, with the one that was probably meant."""
    parser = command_parser()
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        name = unknown[0].partition("=")[0]
        close = meant(name, [text.removeprefix("--").replace("-", "_") for text in arguments.flags])
        hint = f"; did you mean {flag(close)}?" if close and name.startswith("-") else ""
        if not hint and arguments.run is predict.run and name.startswith("-"):
            hint = "; a text that begins with a dash goes behind --"
        raise InputError(f"unrecognized arguments: {' '.join(unknown)}{hint} (see {arguments.prog} --help)")
    return arguments


def command_parser() -> argparse.ArgumentParser:
    """The parser of `sparseq` with all its commands. It imports neither torch nor transformers."""
    parser = Parser(
        prog="sparseq",
        description="Make a BERT smaller and faster: quantization-aware training (qat), knowledge distillation (kd) "
        "and pruning (mp), alone or together.",
        epilog="Start with: sparseq compress --help",
    )
    parser.add_argument("--version", action="version", version=f"sparseq {sparseq.__version__}")
    parser.add_argument(
        "--print-completion",
        action=PrintCompletion,
        choices=SHELLS,
        help="print a script that completes commands and options in this shell",
    )
    commands = parser.add_subparsers(metavar="command", required=True)
    for command in (compress, evaluate, predict, export, size, study):
        name = command.__name__.rpartition(".")[2]
        added = commands.add_parser(
            name,
            help=command.HELP,
            description=f"{command.HELP[0].upper()}{command.HELP[1:]}.",
            epilog=command.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(added)
        flags = [text for action in added._actions for text in action.option_strings if text.startswith("--")]
        added.set_defaults(run=command.run, extra=command.EXTRA, prog=added.prog, flags=flags)
    return parser
