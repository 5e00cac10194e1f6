"""Distillation with transformers' own Trainer: classes of sequences, of tokens, and answers in a text."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from trained import classifier, trainer
from transformers import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    Trainer,
)

from sparseq import convert
from sparseq.distill import HiddenStates, hidden_state_loss
from sparseq.errors import InputError
from sparseq.hf import Distillation, DistillationMixin, DistillationTrainer

IDS = torch.randint(5, 40, (4, 8), generator=torch.Generator().manual_seed(0))
MASK = torch.ones_like(IDS)
MASK[1, 5:] = 0
TOKENS = torch.where(MASK.bool(), IDS % 3, -100)
BATCHES: dict[str, tuple[Any, dict[str, Tensor]]] = {
    "sequences": (BertForSequenceClassification, {"labels": torch.tensor([0, 1, 1, 0])}),
    "tokens": (BertForTokenClassification, {"labels": TOKENS}),
    "answers": (
        BertForQuestionAnswering,
        {"start_positions": torch.tensor([1, 2, 0, 4]), "end_positions": torch.tensor([1, 4, 3, 7])},
    ),
}


def soft(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 times the mean over rows of sum p (log p - log q), in fp64."""
    p, q = ((logits.double() / temperature).log_softmax(-1) for logits in (teacher, student))
    return temperature**2 * (p.exp() * (p - q)).sum(-1).mean()


def pair(head: Any) -> tuple[Any, Any]:
    labels = 2 if head is BertForQuestionAnswering else 3
    student = convert(classifier(head, num_labels=labels).eval())
    return student, classifier(head, seed=5, num_labels=labels, num_hidden_layers=3)


@pytest.mark.parametrize("kind", BATCHES)
def test_the_loss_is_that_of_the_formula(kind: str, tmp_path: Path) -> None:
    head, labels = BATCHES[kind]
    student, teacher = pair(head)
    learned = Distillation(teacher, alpha=0.3, temperature=3.0)
    own = trainer(student, tmp_path, DistillationTrainer, distillation=learned)
    inputs = {"input_ids": IDS, "attention_mask": MASK, **labels}
    loss, _ = own.compute_loss(student, dict(inputs), return_outputs=True)
    assert not teacher.training
    with torch.no_grad():
        mine, theirs = student(**inputs), teacher(input_ids=IDS, attention_mask=MASK)
    if kind == "answers":
        terms = [soft(getattr(mine, n), getattr(theirs, n), 3.0) for n in ("start_logits", "end_logits")]
        expected = sum(terms) / 2
    elif kind == "tokens":
        kept = TOKENS != -100
        expected = soft(mine.logits[kept], theirs.logits[kept], 3.0)
    else:
        expected = soft(mine.logits, theirs.logits, 3.0)
    torch.testing.assert_close(loss.double(), 0.3 * expected + 0.7 * mine.loss.double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", BATCHES)
def test_a_student_comes_closer_to_its_teacher(kind: str, tmp_path: Path) -> None:
    head, labels = BATCHES[kind]
    student, teacher = pair(head)
    data = [
        {"input_ids": IDS[i], "attention_mask": MASK[i], **{name: value[i] for name, value in labels.items()}}
        for i in range(4)
    ]
    learned = Distillation(teacher, alpha=1.0)
    own = trainer(student, tmp_path, DistillationTrainer, 30, distillation=learned, train_dataset=data)

    def distance() -> float:
        with torch.no_grad():
            return float(own.compute_loss(student.eval(), {"input_ids": IDS, "attention_mask": MASK, **labels}))

    before = distance()
    own.train()
    assert distance() < before / 2


def test_logits_in_the_batch_take_the_place_of_a_teacher(tmp_path: Path) -> None:
    student, teacher = pair(BertForSequenceClassification)
    inputs = {"input_ids": IDS, "attention_mask": MASK, "labels": torch.tensor([0, 1, 1, 0])}
    with torch.no_grad():
        logits = teacher.eval()(input_ids=IDS, attention_mask=MASK).logits
    losses = []
    for learned, batch in ((Distillation(teacher), inputs), (Distillation(), {**inputs, "teacher_logits": logits})):
        own = trainer(student, tmp_path, DistillationTrainer, distillation=learned)
        losses.append(own.compute_loss(student, dict(batch)))
    assert torch.equal(*losses)


def test_hidden_states(tmp_path: Path) -> None:
    student, teacher = pair(BertForSequenceClassification)
    states = HiddenStates([1, 2], 32, 32)
    states.attach(student)
    learned = Distillation(teacher, kind=None, hidden_weight=0.5, layers=(2, 3))
    own = trainer(student, tmp_path, DistillationTrainer, distillation=learned)
    inputs = {"input_ids": IDS, "attention_mask": MASK, "labels": torch.tensor([0, 1, 1, 0])}
    loss = own.compute_loss(student, inputs)
    with torch.no_grad():
        mine = student(**inputs, output_hidden_states=True)
        theirs = teacher(input_ids=IDS, attention_mask=MASK, output_hidden_states=True).hidden_states
    expected = mine.loss + 0.5 * hidden_state_loss(mine.hidden_states, theirs[2:], MASK)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("kind", ["DistillationTrainer", "a mix-in of one's own"])
def test_gradients_that_accumulate_are_those_of_the_whole_batch(kind: str, tmp_path: Path) -> None:
    class Own(DistillationMixin, Trainer):
        pass

    weights = []
    for batch, accumulated in ((4, 1), (1, 4)):
        student, teacher = pair(BertForSequenceClassification)
        for module in student.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        data = [{"input_ids": IDS[i], "attention_mask": MASK[i], "labels": torch.tensor(i % 2)} for i in range(4)]
        own = trainer(
            student, tmp_path, Own if "mix-in" in kind else DistillationTrainer, 1,
            train_dataset=data, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulated,
            optim="sgd", max_grad_norm=0.0, learning_rate=1.0,
        )  # fmt: skip
        own.distillation = Distillation(teacher)
        own.train()
        weights.append(student.classifier.weight.detach())
    torch.testing.assert_close(*weights, rtol=0, atol=1e-4)
    moved = (weights[0] - pair(BertForSequenceClassification)[0].classifier.weight).abs().max()
    assert moved > 1e-2


def test_without_distillation_it_is_a_trainer(tmp_path: Path) -> None:
    student = classifier().eval()
    own = trainer(student, tmp_path, DistillationTrainer)
    inputs = {"input_ids": IDS, "attention_mask": MASK, "labels": torch.tensor([0, 1, 1, 0])}
    expected = F.cross_entropy(student(IDS, MASK).logits, inputs["labels"])
    torch.testing.assert_close(own.compute_loss(student, dict(inputs)), expected)
    own.train()


def test_wrong_settings_and_batches(tmp_path: Path) -> None:
    for settings, match in (
        ({"kind": "kl"}, "unknown kd loss 'kl': use ce or mse"),
        ({"alpha": 1.5}, "alpha is 1.5: it must be from 0 to 1"),
        ({"temperature": 0.0}, "temperature is 0.0: it must be above 0"),
        ({"hidden_weight": 1.0}, "hidden states are compared with those of a teacher"),
    ):
        with pytest.raises(InputError, match=match):
            Distillation(**settings)  # type: ignore[arg-type]
    inputs = {"input_ids": IDS, "attention_mask": MASK}
    student, teacher = pair(BertForSequenceClassification)
    for learned, match in (
        (Distillation(), "there is no teacher, and the batch has no teacher_logits"),
        (Distillation(teacher), "no labels to learn from"),
    ):
        with pytest.raises(InputError, match=match):
            trainer(student, tmp_path, DistillationTrainer, distillation=learned).compute_loss(student, inputs)
    with pytest.raises(InputError, match="same rows and the same number of labels"):
        own = trainer(student, tmp_path, DistillationTrainer, distillation=Distillation())
        own.compute_loss(student, {**inputs, "teacher_logits": torch.zeros(4, 2)})
