"""The distillation losses against their formulas."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from sparseq.distill import (
    distillation_loss,
    label_loss,
)
from sparseq.errors import InputError

STUDENT = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 3.0]], dtype=torch.float64)
TEACHER = torch.tensor([[1.0, 1.0, -2.0], [4.0, 0.0, 1.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 2])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_ce_is_hintons_loss(temperature: float, alpha: float) -> None:
    """T^2 times the soft cross-entropy, less the teacher's entropy; the same gradient as with it."""
    student = STUDENT.clone().requires_grad_()
    found = distillation_loss(student, TEACHER, LABELS, temperature=temperature, alpha=alpha)
    p, q = (TEACHER / temperature).softmax(-1), (student / temperature).log_softmax(-1)
    cross_entropy = temperature**2 * -(p * q).sum(-1).mean()
    entropy = temperature**2 * -(p * p.log()).sum(-1).mean()
    hard = F.cross_entropy(student, LABELS)
    torch.testing.assert_close(
        found.double(), alpha * (cross_entropy - entropy) + (1 - alpha) * hard, rtol=1e-5, atol=1e-6
    )
    [gradient] = torch.autograd.grad(found, student)
    [wanted] = torch.autograd.grad(alpha * cross_entropy + (1 - alpha) * hard, student)
    torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-6)


def test_ce_is_zero_where_the_logits_agree() -> None:
    assert distillation_loss(TEACHER, TEACHER, LABELS, alpha=1.0).item() == pytest.approx(0, abs=1e-6)
    assert distillation_loss(TEACHER + 5, TEACHER, LABELS, alpha=1.0).item() == pytest.approx(0, abs=1e-6)


def test_mse_with_classes_and_with_numbers() -> None:
    found = distillation_loss(STUDENT, TEACHER, LABELS, kind="mse", alpha=0.25)
    wanted = 0.25 * (STUDENT - TEACHER).square().mean() + 0.75 * F.cross_entropy(STUDENT, LABELS)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)
    student, teacher, labels = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [2.0]]), torch.tensor([0.0, 2.5])
    found = distillation_loss(student, teacher, labels, kind="mse", alpha=0.5, regression=True)
    assert found.item() == pytest.approx(0.5 * 2.0 + 0.5 * (1 + 0.25) / 2)
    assert label_loss(student, labels, regression=True).item() == pytest.approx(0.625)


def test_half_precision_logits_are_computed_in_fp32() -> None:
    found = distillation_loss(STUDENT.bfloat16(), TEACHER.bfloat16(), LABELS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, distillation_loss(STUDENT, TEACHER, LABELS), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("kind", ["ce", "mse"])
@pytest.mark.parametrize("alphas", [[0.5, 1.0], [0.25, 0.25], [1.0, 0.0]], ids=str)
def test_rows_may_have_a_weight_each(kind: str, alphas: list[float]) -> None:
    options: dict[str, Any] = {"kind": kind, "temperature": 3.0}
    found = distillation_loss(STUDENT, TEACHER, LABELS, alpha=torch.tensor(alphas), **options)
    rows = [
        distillation_loss(STUDENT[i : i + 1], TEACHER[i : i + 1], LABELS[i : i + 1], alpha=alpha, **options)
        for i, alpha in enumerate(alphas)
    ]
    torch.testing.assert_close(found, (rows[0] + rows[1]) / 2)


def test_a_weight_for_each_row_of_a_regression() -> None:
    student, teacher, labels = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [4.0]]), torch.tensor([3.0, 7.0])
    found = distillation_loss(student, teacher, labels, kind="mse", alpha=torch.tensor([0.5, 1.0]), regression=True)
    assert found.item() == pytest.approx(((0.5 * 1 + 0.5 * 4) + 4) / 2)


def test_bad_losses() -> None:
    with pytest.raises(InputError, match="unknown kd loss 'kl'"):
        distillation_loss(STUDENT, TEACHER, LABELS, kind="kl")
    with pytest.raises(InputError, match="use mse"):
        distillation_loss(STUDENT[:, :1], TEACHER[:, :1], LABELS, regression=True)
    with pytest.raises(InputError, match="same number of labels"):
        distillation_loss(STUDENT, TEACHER[:, :2], LABELS)
