"""The command line: `sparseq compress | evaluate | predict | size`."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

import sparseq
from sparseq.errors import InputError
from sparseq.terminal import Parser, say, say_error, write
from sparseq.train.recipe import Recipe
from sparseq.train.settings import flag
from sparseq_kernels.untrusted import quoted

EXTRA = "pip install 'sparseq[train]'"
FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

EXAMPLES = {
    "compress": """\
examples:
  a teacher, fine-tuned plainly:
    sparseq compress --model base --task sst2 --methods none --out runs/teacher
  a student of it, by all three methods (the teacher's layers 0, 3, 6 and 9 to start from):
    sparseq compress --model runs/teacher --layers 4 --teacher runs/teacher --task sst2 \\
      --methods qat,kd,mp --sparsity 0.6 --pattern 4x4 --seed 0 --out runs/student
  your own data, and a recipe file with some settings changed:
    sparseq compress --model tiny --train-file train.csv --validation-file dev.csv \\
      --text-columns review --label-column stars --methods qat --out runs/own
    sparseq compress --recipe runs/student/recipe.toml --sparsity 0.8 --out runs/sparser
  two processes:
    torchrun --nproc-per-node 2 -m sparseq.cli compress ...

Broken off at any moment, the same command goes on from its last checkpoint.""",
    "evaluate": """\
examples:
  sparseq evaluate runs/student
  sparseq evaluate runs/student --validation-file other.csv --text-columns review --label-column label""",
    "predict": """\
examples:
  sparseq predict runs/student "a charming, funny film"
  sparseq predict runs/pairs "How old are you?" --text-pair "What is your age?"
  sparseq predict runs/student < texts.txt          one text a line; the parts of a pair separated by a tab""",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0; 2 for bad input and 1 where the machine fails, such as a full
    disk (one sentence on stderr); 130 when interrupted."""
    try:
        arguments = _parser().parse_args(argv)
        return int(arguments.run(arguments))
    except InputError as error:
        return _fail(error)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("sparseq", "sparseq_kernels"):
            raise
        return _fail(f"this needs {error.name}, which is not installed: {EXTRA}")
    except KeyboardInterrupt:
        say("sparseq: interrupted", error=True)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has had enough
        _leave_output()
        return 0
    except OSError as error:  # a full disk, a device that fails: nothing that was given is wrong
        _leave_output()
        _fail(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
        return FAILED
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _leave_output() -> None:
    """Lets the interpreter's last flush of stdout succeed where stdout takes nothing any more."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(error: object) -> int:
    say_error(error)
    return BAD_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="sparseq",
        description="Make a BERT smaller and faster: quantization-aware training (qat), knowledge distillation (kd) "
        "and magnitude pruning (mp), alone or together.",
        epilog="Start with: sparseq compress --help",
    )
    parser.add_argument("--version", action="version", version=f"sparseq {sparseq.__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)

    def command(name: str, help: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=help,
            description=f"{help[0].upper()}{help[1:]}.",
            epilog=EXAMPLES.get(name),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        return added

    compress = command("compress", "train a model smaller and pack it into a folder", _compress)
    compress.usage = "sparseq compress --model M --task TASK --out DIR [--teacher T] [--methods LIST] [setting ...]"
    _add_settings(compress)
    evaluate = command("evaluate", "score the model in a finished run's folder", _evaluate)
    predict = command("predict", "label texts with the model in a finished run's folder", _predict)
    size = command("size", "count what the model in a folder weighs, layer by layer", _size)
    for added in (evaluate, predict, size):
        added.add_argument("folder", metavar="DIR", help="a folder that `sparseq compress` has written")
    evaluate.add_argument("--data-dir", metavar="DIR", help="other data: the task in the classic GLUE layout")
    evaluate.add_argument("--validation-file", metavar="FILE", help="other data: your own .csv, .tsv or .jsonl")
    evaluate.add_argument("--text-columns", metavar="A[,B]", help="your file's text column or columns")
    evaluate.add_argument("--label-column", metavar="NAME", help="your file's label column")
    evaluate.add_argument("--max-validation-rows", metavar="N", type=int, help="a random subset of so many rows")
    predict.add_argument("text", nargs="*", help="texts; without any, they are read from stdin, one a line")
    predict.add_argument("--text-pair", metavar="TEXT", help="the second text, for tasks on pairs")
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """A flag for each of the recipe's settings; none has a default here, so that only flags given override a file."""
    parser.add_argument("--recipe", metavar="FILE", help="settings from a .toml or .yaml file; flags override them")
    groups: dict[str, Any] = {}
    defaults = {field.name: field.default for field in dataclasses.fields(Recipe)}
    for name, described in Recipe.settings().items():
        group = groups.setdefault(described.group, None) or parser.add_argument_group(described.group)
        groups[described.group] = group
        default = defaults[name]
        shown = ",".join(default) if isinstance(default, tuple) else default
        options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": described.help.replace("%", "%%")}
        if isinstance(default, bool):
            options["action"] = argparse.BooleanOptionalAction
            shown = "yes" if default else "no"
        else:
            choices = "{" + ",".join(map(str, described.choices)) + "}" if described.choices else None
            options["metavar"] = described.metavar or choices or "X"
        if shown not in (None, ""):
            options["help"] += f" (default: {shown})"
        group.add_argument(flag(name), dest=name, **options)


def _compress(arguments: argparse.Namespace) -> int:
    given = {name: value for name, value in vars(arguments).items() if name in Recipe.settings()}
    recipe = (Recipe.from_file(arguments.recipe) if arguments.recipe else Recipe()).replace(**given).validate()
    from sparseq.train import compress
    from sparseq.train.folder import RunFolder
    from sparseq.train.report import show_result

    try:
        result = compress(recipe)
    except KeyboardInterrupt:
        last = RunFolder(recipe.out).last_checkpoint() if recipe.out else None
        step = last[1].step if last else 0
        say(f"sparseq: interrupted; the same command goes on from step {step}", error=True)
        return INTERRUPTED
    if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
        show_result(result)
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from sparseq.train import evaluate

    columns = arguments.text_columns.split(",") if arguments.text_columns else ()
    found = evaluate(
        arguments.folder,
        data_dir=arguments.data_dir,
        validation_file=arguments.validation_file,
        text_columns=columns,
        label_column=arguments.label_column,
        max_validation_rows=arguments.max_validation_rows,
    )
    for split, rows in found["rows"].items():
        say(split, f"{rows} rows", separator="\t")
    for name, value in {**found["metrics"], "score": found["score"]}.items():
        say(name, f"{value:.4f}", separator="\t")
    return 0


def _predict(arguments: argparse.Namespace) -> int:
    from sparseq.train import predict

    if arguments.text:
        pair = (arguments.text_pair,) if arguments.text_pair is not None else ()
        if pair and len(arguments.text) > 1:
            raise InputError(
                "--text-pair goes with one text; give several pairs on stdin, the parts separated by a tab"
            )
        texts = [(text, *pair) for text in arguments.text]
    else:
        if sys.stdin is None:
            raise InputError("there is no stdin to read texts from: give them as arguments")
        if sys.stdin.isatty():
            say("reading texts from the terminal, one a line; end with Ctrl-D", error=True)
        try:
            texts = [tuple(line.rstrip("\r\n").split("\t")) for line in sys.stdin if line.strip()]
        except UnicodeDecodeError as error:
            raise InputError(f"stdin is not {error.encoding} text: give the texts in that encoding") from error
    for text in texts:
        if any("\ud800" <= character <= "\udfff" for part in text for character in part):
            raise InputError(f"the text {quoted(text)} is not valid Unicode: give it as UTF-8")
    for found in predict(arguments.folder, texts):
        say(found.label, f"{found.value:.4f}", *found.text, separator="\t")
    return 0


def _size(arguments: argparse.Namespace) -> int:
    write(f"{sparseq.size_report(sparseq.load(arguments.folder))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
