"""The precision of a run's arithmetic: fp32, or bf16 by autocast."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sparseq.errors import InputError

from .hardware import computes_bf16

# Of every evaluation and calibration, whatever a model was trained in.
EVALUATION_PRECISION = "fp32"


def pick_precision(wanted: str) -> str:
    """'fp32' or 'bf16' for a recipe's precision. Raises InputError for bf16 on a GPU without it.

    On a CPU without bf16 units bf16 is emulated, several times slower than fp32: auto never takes it.
    """
    if wanted == "bf16" and torch.cuda.is_available() and not computes_bf16():
        raise InputError("this GPU does not compute bf16: use --precision fp32 (or auto)")
    if wanted == "auto":
        return "bf16" if computes_bf16() else "fp32"
    return wanted


@contextmanager
def arithmetic(place: torch.device, precision: str = EVALUATION_PRECISION) -> Iterator[None]:
    """Computes what is inside in 'fp32' or 'bf16' (autocast) on `place`, whatever surrounds it.

    The only place in a run that turns autocast on or off. Models are never wrapped for it: what a run leaves on a model
    would decide how that model is evaluated later.
    """
    with torch.autocast(place.type, torch.bfloat16, enabled=precision == "bf16"):
        yield
