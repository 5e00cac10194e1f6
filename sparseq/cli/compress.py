"""`sparseq compress`."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

from sparseq.extras import require
from sparseq.terminal import say, say_json
from sparseq.train.given import named_function
from sparseq.train.recipe import Recipe
from sparseq.train.settings import flag

from .exits import INTERRUPTED, code_of

EXTRA = "train"
HELP = "train a model smaller and pack it into a folder"
EXAMPLES = """\
examples:
  a teacher, fine-tuned plainly:
    sparseq compress --model base --task sst2 --methods none --out runs/teacher
  a student of that teacher, with all three methods (it starts from the teacher's layers 0, 3, 6 and 9):
    sparseq compress --model runs/teacher --layers 4 --teacher runs/teacher --task sst2 \\
      --methods qat,kd,mp --sparsity 0.6 --pattern 4x4 --seed 0 --out runs/student
  a fine-tuned model packed as it is, without training:
    sparseq compress --model runs/teacher --task sst2 --methods ptq --epochs 0 --out runs/packed
  your own data, and a recipe file with some settings changed:
    sparseq compress --model tiny --train-file train.csv --validation-file dev.csv \\
      --text-columns review --label-column stars --methods qat --out runs/own
    sparseq compress --recipe runs/student/recipe.toml --sparsity 0.8 --out runs/sparser
  a data set of the Hugging Face hub:
    sparseq compress --model tiny --dataset stanfordnlp/imdb --validation-split test --methods qat --out runs/hub
  what a run would do and how large the model would be, without doing it:
    sparseq compress --recipe runs/student/recipe.toml --out runs/again --dry-run
  exit with 3 if the student loses more than half a point to its teacher, as a step of a pipeline:
    sparseq compress --recipe runs/student/recipe.toml --max-drop 0.5 --out runs/student
  two processes:
    torchrun --nproc-per-node 2 -m sparseq.cli compress ...

After an interruption at any time, the same command continues from its last checkpoint."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """A flag for each setting of the recipe; flags have no defaults here, so that only given flags override a file."""
    parser.usage = "sparseq compress --model M --task TASK --out DIR [--teacher T] [--methods LIST] [setting ...]"
    parser.add_argument("--recipe", metavar="FILE", help="settings from a .toml or .yaml file; flags override them")
    output = parser.add_argument_group("output (not part of a recipe)")
    output.add_argument("--dry-run", action="store_true", help="check everything, say what would be done and how large "
                        "the model would be, and write nothing")  # fmt: skip
    output.add_argument("--quiet", action="store_true", help="no progress on stderr: only errors, and the result")
    output.add_argument("--json", action="store_true", help="the result as one JSON object on stdout, as in "
                        "metrics.json")  # fmt: skip
    parser.add_argument(
        "--metric",
        metavar="MODULE:FUNCTION",
        help="score by a function of yours of the true and the predicted labels, such as "
        "sklearn.metrics:cohen_kappa_score; higher is better. It is imported and run, so that no recipe can name it",
    )
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


def run(arguments: argparse.Namespace) -> int:
    given = {name: value for name, value in vars(arguments).items() if name in Recipe.settings()}
    recipe = (Recipe.from_file(arguments.recipe) if arguments.recipe else Recipe()).replace(**given).validate()
    require(EXTRA)
    metric = named_function(arguments.metric)
    from sparseq.train import compress, distributed
    from sparseq.train.figure import FIGURE, draw_training
    from sparseq.train.folder import RunFolder
    from sparseq.train.plan import dry_run
    from sparseq.train.progress import Reporter
    from sparseq.train.summary import show_dry_run, show_result

    reporter = Reporter(silent=True) if arguments.quiet else None
    if arguments.dry_run:
        found = dry_run(recipe, metric=metric, reporter=reporter)
        if distributed.rank() > 0:
            return 0
        if arguments.json:
            say_json(found.as_dict())
        else:
            show_dry_run(found)
        return 0
    try:
        result = compress(recipe, metric=metric, reporter=reporter)
    except KeyboardInterrupt:
        if distributed.rank() == 0:
            last = RunFolder(recipe.out).last_checkpoint() if recipe.out else None
            step = last[1].step if last else 0
            say(f"sparseq: interrupted; the same command continues from step {step}", error=True)
        return INTERRUPTED
    if distributed.rank() > 0:
        return 0
    if not (Path(result.out) / FIGURE).exists():
        draw_training(result.out)
    if arguments.json:
        say_json({**result.as_dict(), "out": result.out, "finished_before": result.finished_before})
    else:
        show_result(result, None if arguments.quiet else recipe.resolved())
    return code_of(result.drop if recipe.max_drop is not None else None)
