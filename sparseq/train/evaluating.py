"""`evaluate`: scores a finished run's folder, on its own validation rows or others."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sparseq.dataset_name import VALIDATION_SPLIT
from sparseq.errors import InputError
from sparseq.tasks import load_data, score
from sparseq.tasks.metrics import Metric

from .baseline import Logits
from .comparing import load_baseline
from .data import count_cut, describe_cut, tokenise
from .gate import compared_model
from .progress import Reporter
from .scoring import evaluate_model, finished, load_folder
from .sources import validation_source


def evaluate(
    folder: str | Path,
    *,
    validation: Any = None,
    data_dir: str | None = None,
    validation_file: str | None = None,
    dataset: str | None = None,
    validation_split: str | None = None,
    text_columns: Sequence[str] = (),
    label_column: str | None = None,
    max_validation_rows: int | None = None,
    batch_size: int | None = None,
    metric: Metric | None = None,
    max_drop: float | None = None,
    baseline: str | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Scores the model of a finished run on its own validation data, or on other data with the same labels.

    validation, metric: see `compress`; a run that was given rows or a metric needs them again. data_dir,
    validation_file, dataset: other data, as the recipe's settings. validation_split: of that data set, or of the run's
    own. max_drop, baseline: as the recipe's settings; the teacher is that of the run.

    Returns task, rows (per split), metrics and score, and with `max_drop` or `baseline` the drop (a `Drop` as a dict).
    Raises InputError for an unfinished or damaged folder, for data that cannot be read, and for a `max_drop` with
    nothing to compare with.
    """
    task, recipe = finished(folder)
    source = validation_source(recipe)
    other = {"data_dir": data_dir, "validation_file": validation_file, "dataset": dataset, "validation": validation}
    if any(value is not None for value in other.values()):
        source.update(other, validation_split=VALIDATION_SPLIT)
    if validation_split is not None:
        source["validation_split"] = validation_split
    if all(source.get(name) is None for name in ("validation_file", "dataset", "validation")):
        if text_columns or label_column:
            raise InputError("--text-columns and --label-column go with --validation-file or --dataset: give that too")
        source.update(text_columns=None, label_column=None)
    changed = {
        "text_columns": tuple(text_columns) or None,
        "label_column": label_column,
        "max_validation_rows": max_validation_rows,
    }
    source.update({name: value for name, value in changed.items() if value is not None})
    data = load_data(task, **source, with_train=False, metric=metric)
    reporter, size = reporter or Reporter(), batch_size or recipe.eval_batch_size
    for sentence in data.summary():
        reporter.say(sentence)
    compared = replace(recipe, max_drop=max_drop, baseline=baseline, eval_batch_size=size)
    compared_with = load_baseline(compared, data, reporter) if compared_model(compared) is not None else None
    model, tokenizer = load_folder(folder)
    splits = {split: tokenise(part, tokenizer, recipe.max_length, model) for split, part in data.validations.items()}
    cut = sum(count_cut(part, splits[name], tokenizer, recipe.max_length) for name, part in data.validations.items())
    if cut:
        reporter.say(describe_cut(cut, recipe.max_length))
    kept: Logits = {}
    metrics = evaluate_model(model, data.task, splits, tokenizer, batch_size=size, reporter=reporter, kept=kept)
    return {
        "task": data.task.name,
        "rows": {split: len(part) for split, part in splits.items()},
        "metrics": metrics,
        "score": score(data.task, metrics),
        **({} if compared_with is None else {"drop": asdict(compared_with.drop(data, kept, max_drop))}),
    }
