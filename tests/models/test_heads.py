"""A teacher's head must be of the task."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_tokenizer import write_tokenizer

from sparseq import checkpoint, models
from sparseq.errors import InputError
from sparseq.nn import convert, pack


def test_teacher_must_fit_the_task(classifier: Path, headless: Path) -> None:
    teacher, _ = models.load_model(classifier, num_labels=3, teacher=True)
    student, _ = models.load_model(classifier, num_labels=3)
    assert torch.equal(teacher.classifier.weight, student.classifier.weight)
    renewed, _ = models.load_model(classifier, num_labels=2)
    assert renewed.classifier.weight.shape == (2, 32)
    with pytest.raises(InputError, match="trained for 3 labels, but the task has 2"):
        models.load_model(classifier, num_labels=2, teacher=True)
    with pytest.raises(InputError, match="no trained classification head"):
        models.load_model(headless, num_labels=2, teacher=True)
    with pytest.raises(InputError, match="labels in the order"):
        models.load_model(classifier, num_labels=3, label_names=("yes", "maybe", "no"), teacher=True)
    models.load_model(classifier, num_labels=3, label_names=("No", "Maybe", "Yes"), teacher=True)


SENTIMENT, GENERIC = ("negative", "positive"), ("LABEL_0", "LABEL_1")

HEADS: list[tuple[Any, dict[str, Any], str]] = [
    (SENTIMENT, {"label_names": ("NEGATIVE", "Positive")}, ""),
    (("not_entailment", "entailment"), {"label_names": ("Not Entailment", "ENTAILMENT")}, ""),
    (GENERIC, {"label_names": SENTIMENT}, ""),
    (("label 0", "Label-1"), {"label_names": SENTIMENT}, ""),
    (SENTIMENT, {"label_names": ("0", "1")}, ""),
    (SENTIMENT, {"label_names": None}, ""),
    (("1", "2"), {"label_names": ("0", "1")}, ""),
    (
        SENTIMENT,
        {"label_names": ("not_equivalent", "equivalent")},
        "trained for the labels .*negative.* the task has .*eq",
    ),
    (SENTIMENT, {"label_names": ("negative", "neutral")}, "trained for the labels"),
    (SENTIMENT, {"label_names": ("positive", "negative")}, "labels in the order"),
    (("LABEL_0", "positive"), {"label_names": SENTIMENT}, "trained for the labels"),
    (("x",), {"label_names": SENTIMENT}, "was trained for 1 label, but the task has 2"),
    (("x",), {"label_names": None, "num_labels": 1, "regression": True}, ""),
    (SENTIMENT, {"label_names": SENTIMENT, "problem_type": "multi_label_classification"}, "multi label classification"),
    (
        ("x",),
        {"num_labels": 1, "regression": True, "problem_type": "multi_label_classification"},
        "is regression",
    ),
]


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize(("own", "task", "refused"), HEADS, ids=str)
def test_a_teacher_of_another_task_is_refused(
    own: tuple[str, ...], task: dict[str, Any], refused: str, compressed: bool, tmp_path: Path, tiny_config: Any
) -> None:
    from transformers import BertForSequenceClassification

    task = {"num_labels": 2, "label_names": None, **task}
    tiny_config.num_hidden_layers = 1
    tiny_config.problem_type = task.pop("problem_type", None)
    tiny_config.num_labels = len(own)
    tiny_config.id2label = dict(enumerate(own))
    teacher = BertForSequenceClassification(tiny_config)
    if compressed:
        checkpoint.save(pack(convert(teacher)), tmp_path)
    else:
        teacher.save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    if refused:
        with pytest.raises(InputError, match=refused):
            models.load_model(tmp_path, teacher=True, **task)
    else:
        models.load_model(tmp_path, teacher=True, **task)
