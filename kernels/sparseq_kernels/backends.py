"""Which implementation of an op runs: visible, and forceable.

A backend is a table from op to function. For a tensor's device the first available backend of `_PREFERENCE` that has
the op is taken; the reference has them all and runs anywhere. `use_backend` (or SPARSEQ_BACKEND in the environment)
forces one for the ops that it has; one that cannot run says why, when it is forced.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .cpu import int8_linear as cpu_int8_linear
from .cpu import qat_linear as cpu_qat_linear
from .cpu import quantize_rows as cpu_quantize_rows
from .errors import InputError
from .reference import fake_quant, int8_embedding, int8_linear, magnitude_mask, masked_linear, qat_linear, quantize_rows

Implementation = Callable[..., Any]

REFERENCE: dict[str, Implementation] = {
    "quantize_rows": quantize_rows.quantize_rows,
    "fake_quant": fake_quant.fake_quant,
    "fake_quant_backward": fake_quant.fake_quant_backward,
    "qat_linear": qat_linear.qat_linear,
    "qat_linear_backward": qat_linear.qat_linear_backward,
    "int8_linear": int8_linear.int8_linear,
    "int8_embedding": int8_embedding.int8_embedding,
    "masked_linear": masked_linear.masked_linear,
    "masked_linear_backward": masked_linear.masked_linear_backward,
    "magnitude_mask": magnitude_mask.magnitude_mask,
}

# What is missing here is memory-bound or one library call already, and the reference's code is the CPU's as well.
CPU: dict[str, Implementation] = {
    **REFERENCE,
    "quantize_rows": cpu_quantize_rows.quantize_rows,
    "qat_linear": cpu_qat_linear.qat_linear,
    "qat_linear_backward": cpu_qat_linear.qat_linear_backward,
    "int8_linear": cpu_int8_linear.int8_linear,
}

_TABLES = {"reference": REFERENCE, "cpu": CPU}
_DEVICES = {"reference": None, "cpu": ("cpu",)}
_forced: str | None = None


def backend(device: str = "cpu") -> str:
    """The backend that runs for tensors on `device` ("cpu", "cuda"): the forced one, otherwise the fastest it has."""
    if _forced is not None:
        return _forced
    return "cpu" if device == "cpu" else "reference"


def set_backend(name: str | None) -> None:
    """Forces the backend `name` everywhere, or with None gives the choice back; InputError if unknown."""
    global _forced
    if name is not None and name not in _TABLES:
        raise InputError(f"unknown backend {name!r}: available are {', '.join(_TABLES)}")
    _forced = name


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Forces a backend within a `with` block."""
    before = _forced
    set_backend(name)
    try:
        yield
    finally:
        set_backend(before)


def implementation(op: str, device: str) -> Implementation:
    """The function that runs `op` on tensors of `device`; InputError where a forced backend cannot."""
    name = backend(device)
    devices = _DEVICES[name]
    if devices is not None and device not in devices:
        raise InputError(
            f"backend {name!r} is forced but runs on {', '.join(devices)} tensors only, and {op} got {device} ones"
        )
    return _TABLES[name][op]


def keeps_residuals(device: str, weight_scale: Any, input_scale: Any, weight_bits: int, input_bits: int) -> bool:
    """Whether `qat_linear` on this device hands its integers to the backward, which then does not quantize again."""
    integers = qat_linear.uses_integers(weight_bits, input_bits)
    return backend(device) == "cpu" and integers and weight_scale is None and input_scale is None


set_backend(os.environ.get("SPARSEQ_BACKEND") or None)
