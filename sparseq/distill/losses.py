"""Losses on logits."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sparseq.errors import InputError


def label_loss(logits: Tensor, labels: Tensor, *, regression: bool, class_weights: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of the logits [N, C] against class numbers [N]; mean squared error for regression (C = 1).

    class_weights: [C], positive; then the mean is weighted by the weights of the rows' classes, as torch's
    `cross_entropy(weight=...)`.
    """
    if regression:
        return F.mse_loss(logits.float().squeeze(-1), labels.float())
    return F.cross_entropy(logits.float(), labels, class_weights)


def soft_loss(student_logits: Tensor, teacher_logits: Tensor, *, kind: str = "ce", temperature: float = 2.0) -> Tensor:
    """The loss of the student's logits s [N, C] on the teacher's t [N, C], a scalar in fp32.

    - `ce`: T^2 * KL(softmax(t / T) || softmax(s / T)), the mean over rows. It differs from the soft cross-entropy of
      Hinton et al. 2015 ("Distilling the Knowledge in a Neural Network", section 2) by the teacher's entropy, which
      is constant: the gradients are the same, and the T^2 keeps their size as T varies;
    - `mse`: the mean of (s - t)^2 over rows and classes (Ba and Caruana 2014, "Do Deep Nets Really Need to be
      Deep?"), for regression too.

    Raises InputError for another kind, and where the two shapes differ.
    """
    _check_shapes(student_logits, teacher_logits)
    student, teacher = student_logits.float(), teacher_logits.float()
    if kind == "mse":
        return F.mse_loss(student, teacher)
    if kind != "ce":
        raise InputError(f"unknown kd loss {kind!r}: use ce or mse")
    return temperature**2 * F.kl_div(
        F.log_softmax(student / temperature, dim=-1),
        F.log_softmax(teacher / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    kind: str = "ce",
    temperature: float = 2.0,
    alpha: float | Tensor = 0.5,
    regression: bool = False,
    class_weights: Tensor | None = None,
) -> Tensor:
    """alpha * KD + (1 - alpha) * label loss, a scalar in fp32; `alpha` in [0, 1], for all rows or one for each [N].

    KD is the `soft_loss` of the logits [N, C]. class_weights: see `label_loss`; with an alpha for each row, each label
    counts by the weight of its class times its row's 1 - alpha, over the sum of the weights.

    Raises InputError for another kind, for `ce` with regression, and where the two logits' shapes differ.
    """
    _check_shapes(student_logits, teacher_logits)
    student, teacher = student_logits.float(), teacher_logits.float()
    if isinstance(alpha, Tensor):
        weighted = class_weights is not None and not regression
        total = _weighted(student, labels, 1 - alpha, class_weights) if weighted else student.new_zeros(())
        for value in alpha.unique():
            rows = alpha == value
            share = rows.sum() / len(alpha)
            if weighted:
                soft = soft_loss(student[rows], teacher[rows], kind=kind, temperature=temperature)
                total = total + value * soft * share
                continue
            of_rows = (tensor[rows] for tensor in (student, teacher, labels))
            loss = distillation_loss(
                *of_rows, kind=kind, temperature=temperature, alpha=value.item(), regression=regression
            )
            total = total + loss * share
        return total
    if kind == "ce" and regression:
        raise InputError("kd loss 'ce' needs classes, and a regression task has none: use mse (--kd-loss mse)")
    soft = soft_loss(student, teacher, kind=kind, temperature=temperature)
    if alpha == 1:  # skipped, so that rows without a usable label are accepted
        return soft
    labelled = label_loss(student_logits, labels, regression=regression, class_weights=class_weights)
    return alpha * soft + (1 - alpha) * labelled


def _weighted(student: Tensor, labels: Tensor, shares: Tensor, class_weights: Tensor | None) -> Tensor:
    """The sum of the rows' cross-entropies by class weight and share, over the sum of the labelled rows' weights."""
    losses = F.cross_entropy(student, labels, class_weights, reduction="none")  # 0 without a label
    ones = F.nll_loss(-torch.ones_like(student), labels, class_weights, reduction="none")
    return (shares * losses).sum() / ones.sum().clamp(min=torch.finfo(student.dtype).tiny)


def _check_shapes(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise InputError(
            f"the teacher's logits are {tuple(teacher.shape)} and the student's {tuple(student.shape)}: "
            "both need the same rows and the same number of labels"
        )
