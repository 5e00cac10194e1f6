"""Checks that a trained classification head belongs to the task."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sparseq.errors import InputError
from sparseq.terminal import counted
from sparseq_kernels.untrusted import quoted

__all__ = ["check_head", "no_head"]

# Names that carry no meaning: transformers' default names and numbers. 0 and 1 in a file may be the negative and
# positive of a teacher.
_GENERIC = re.compile(r"label[\W_]*\d+|[+-]?\d+(\.\d+)?", re.IGNORECASE)


def check_head(
    config: Any,
    source: str,
    num_labels: int,
    label_names: Sequence[str] | None,
    *,
    regression: bool = False,
    what: str = "teacher",
) -> None:
    """Raises InputError unless the checkpoint's config has a classification head for these labels in this order.

    what: the word for the checkpoint in messages, "teacher" or "model".

    If both have label names, the names are compared by their letters and digits alone: "Not Entailment" equals
    "not_entailment".
    """
    named = config.architectures or ()  # if it names none, the weights decide
    if named and not any(name.endswith("ForSequenceClassification") for name in named):
        raise no_head(source, what)
    kind = getattr(config, "problem_type", None)
    wanted_kind = "regression" if regression else "single_label_classification"
    if kind not in (None, wanted_kind):
        raise InputError(
            f"the {what} {source} was trained for {kind.replace('_', ' ')}, but the task is "
            f"{wanted_kind.replace('_', ' ')}; give a {what} of the same task"
        )
    if config.num_labels != num_labels:
        raise InputError(
            f"the {what} {source} was trained for {counted(config.num_labels, 'label')}, but the task has "
            f"{num_labels}; give a {what} of the same task"
        )
    if regression or label_names is None:
        return
    own = [str(config.id2label.get(i, f"LABEL_{i}")) for i in range(num_labels)]
    wanted = [str(label) for label in label_names]
    if _unnamed(own) or _unnamed(wanted) or list(map(_plain, own)) == list(map(_plain, wanted)):
        return
    if sorted(map(_plain, own)) == sorted(map(_plain, wanted)):
        raise InputError(
            f"the {what} {source} has its labels in the order {quoted(own)}, but the task has {quoted(wanted)}: "
            f"number the data's labels as the {what}'s, or give a {what} of the task's order"
        )
    raise InputError(
        f"the {what} {source} was trained for the labels {quoted(own)}, but the task has {quoted(wanted)}; give a "
        f"{what} of the same task, or the same names to both where they mean the same"
    )


def no_head(source: str, what: str = "teacher") -> InputError:
    """The error for a teacher or a model (`what`) that was never trained to classify."""
    return InputError(f"the {what} {source} has no trained classification head; fine-tune it on the task first")


def _unnamed(labels: Sequence[str]) -> bool:
    return all(_GENERIC.fullmatch(label.strip()) for label in labels)


def _plain(label: str) -> str:
    return re.sub(r"[\W_]+", "", label).casefold() or label
