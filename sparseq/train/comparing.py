"""Comparing the score of a model with that of its baseline."""

from typing import Any

import numpy as np
from torch import nn

from sparseq.distill import digest_model
from sparseq.errors import InputError
from sparseq.tasks import Data

from . import hardware
from .baseline import Baseline
from .data import tokenise
from .gate import Drop, compared_model
from .prepare import load_finetuned
from .progress import Reporter
from .recipe import Recipe
from .scoring import predict_logits
from .trial import check_reads


def load_baseline(recipe: Recipe, data: Data, reporter: Reporter, known: Drop | None = None) -> Baseline | None:
    """Loads the model that the recipe's score is compared with, and runs it on the validation rows.

    known: an earlier comparison; None is returned if it was with the same model.

    Raises InputError for a model that is not one of the task, or that cannot read the rows.
    """
    name, task = compared_model(recipe), data.task
    assert name is not None
    try:
        model, tokenizer = load_finetuned(name, task)
    except InputError as error:
        raise InputError(f"the baseline {name}, which is loaded like a teacher, cannot be used: {error}") from error
    digest = digest_model(model)
    if known is not None and known.digest == digest:
        return None
    reading: dict[str, Any] = {"pairs": len(task.columns) == 2, "num_labels": task.num_labels}
    check_reads(model, tokenizer, recipe.max_length, name=f"the baseline {name}", **reading)
    logits = predicted(model, tokenizer, recipe, data, reporter, "evaluating the baseline")
    if not all(np.isfinite(values).all() for values in logits.values()):
        raise InputError(f"the logits of the baseline {name} hold NaN or infinity: use another one")
    return Baseline(name, digest, logits)


def predicted(
    model: nn.Module, tokenizer: Any, recipe: Recipe, data: Data, reporter: Reporter, name: str
) -> dict[str, Any]:
    """The logits of a loaded model on each validation split, by name: float32 [rows, num_labels]."""
    model = model.to(hardware.device())
    logits = {}
    with reporter.phase(name, sum(map(len, data.validations.values()))) as phase:
        for split, rows in data.validations.items():
            tokens = tokenise(rows, tokenizer, recipe.max_length, model)
            before = phase.done
            logits[split] = predict_logits(model, tokens, tokenizer, batch_size=recipe.eval_batch_size).numpy()
            phase.update(before + len(rows))
    return logits
