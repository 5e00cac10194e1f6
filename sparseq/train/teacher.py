"""The teacher's logits on text rows, for training and for its own score."""

import json
from typing import Any

from datasets import Dataset
from numpy.typing import NDArray
from torch import Tensor

from sparseq.distill import TeacherLogits, digest_texts
from sparseq.errors import InputError
from sparseq.nn import named_layers
from sparseq_kernels.cache import cache_dir

from . import conditions, distributed, hardware
from .data import tokenise
from .precision import EVALUATION_PRECISION
from .prepare import Prepared
from .progress import Reporter
from .recipe import Recipe
from .scoring import predict_logits


def validation_logits(
    recipe: Recipe, prepared: Prepared, reporter: Reporter, *, keep: bool = True
) -> dict[str, NDArray[Any]]:
    """The teacher's logits [rows, labels] on each validation split, in fp32 like the student's. keep: see `_logits`."""
    return {
        split: _logits(
            recipe, prepared, rows, reporter,
            name="evaluating the teacher", precision=EVALUATION_PRECISION, keep=keep,
        ).numpy()
        for split, rows in prepared.data.validations.items()
    }  # fmt: skip


def teacher_logits(recipe: Recipe, prepared: Prepared, rows: Dataset, reporter: Reporter) -> Tensor:
    """The teacher's logits [rows, labels] on text rows, for training."""
    return _logits(recipe, prepared, rows, reporter, name="teacher logits", precision=prepared.precision)


def _logits(
    recipe: Recipe,
    prepared: Prepared,
    rows: Dataset,
    reporter: Reporter,
    *,
    name: str,
    precision: str,
    keep: bool = True,
) -> Tensor:
    """The teacher's logits [rows, labels] on text rows, from the cache if they were computed before.

    keep: False does not write to the cache.
    """
    teacher, tokenizer = prepared.teacher, prepared.teacher_tokenizer
    assert teacher is not None
    texts = [rows[name][:] for name in ("text_a", "text_b") if name in rows.column_names]
    key = (
        digest_texts(texts),
        prepared.fingerprint["teacher"],
        prepared.fingerprint["teacher's tokenizer"],
        str(recipe.max_length),
        # rows of a batch are padded together
        str(recipe.eval_batch_size),
        json.dumps(conditions.current(precision, ops=any(True for _ in named_layers(teacher)))),
    )
    cache = TeacherLogits(cache_dir() / "logits", key)

    def compute() -> Tensor:
        tokens = tokenise(rows, tokenizer, recipe.max_length, teacher)
        return predict_logits(
            teacher.to(hardware.device()), tokens, tokenizer,
            batch_size=recipe.eval_batch_size, precision=precision, phase=phase,
        )  # fmt: skip

    def known_or_computed() -> Tensor:
        known = cache.get(len(rows), compute, reporter.say) if keep else cache.load(len(rows))
        logits = compute() if known is None else known
        if not logits.isfinite().all():
            raise InputError(f"the logits of teacher {recipe.teacher} hold NaN or infinity: use another teacher")
        return logits

    with reporter.phase(name, len(rows)) as phase:
        logits = distributed.in_first(known_or_computed)
        kept = f"kept in {cache.folder}" if cache.path.exists() else "not kept"
        phase.update(len(rows), kept)
    return logits
