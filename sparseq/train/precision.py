"""The precision of a run's arithmetic: fp32, or bf16 by autocast."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sparseq.errors import InputError

from .hardware import computes_bf16

# The precision of every evaluation and calibration, whatever the precision of training.
EVALUATION_PRECISION = "fp32"


def pick_precision(wanted: str) -> str:
    """'fp32' or 'bf16' for a recipe's precision.

    A CPU without bf16 units emulates bf16 several times slower than fp32, so auto does not choose it there. Raises
    InputError for bf16 on a GPU without it.
    """
    if wanted == "bf16" and torch.cuda.is_available() and not computes_bf16():
        raise InputError("this GPU does not compute bf16: use --precision fp32 (or auto)")
    if wanted == "auto":
        return "bf16" if computes_bf16() else "fp32"
    return wanted


@contextmanager
def arithmetic(place: torch.device, precision: str = EVALUATION_PRECISION) -> Iterator[None]:
    """Runs the block in 'fp32' or 'bf16' (autocast) on `place`, whatever the surrounding context.

    This is the only place in a run that switches autocast. Models are never wrapped for it, because a wrapper left on a
    model would affect how that model is evaluated later.
    """
    with torch.autocast(place.type, torch.bfloat16, enabled=precision == "bf16"):
        yield
