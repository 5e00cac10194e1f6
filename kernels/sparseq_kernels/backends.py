"""Which implementation of an op runs: visible, and forceable.

A backend is a table from op to function, and each has every op. `backend()` names the one in use; `use_backend`,
`set_backend` or SPARSEQ_BACKEND in the environment force one, and one that cannot run says why.
"""

import functools
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .cpu import int8_linear as cpu_int8_linear
from .cpu import masked_linear as cpu_masked_linear
from .cpu import qat_linear as cpu_qat_linear
from .cpu import quantize_rows as cpu_quantize_rows
from .cpu.native import why_not
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

_CPU_MODULES: dict[str, Implementation] = {
    "quantize_rows": cpu_quantize_rows.quantize_rows,
    "qat_linear": cpu_qat_linear.qat_linear,
    "qat_linear_backward": cpu_qat_linear.qat_linear_backward,
    "int8_linear": cpu_int8_linear.int8_linear,
    "masked_linear": cpu_masked_linear.masked_linear,
    "masked_linear_backward": cpu_masked_linear.masked_linear_backward,
}
# What is missing from the modules is memory-bound or one library call already: there the reference serves the CPU too.
CPU = REFERENCE | {op: functools.partial(function, native=False) for op, function in _CPU_MODULES.items()}
NATIVE = REFERENCE | {op: functools.partial(function, native=True) for op, function in _CPU_MODULES.items()}

TABLES = {"reference": REFERENCE, "cpu": CPU, "native": NATIVE}
_ON_CPU = ("cpu", "native")
_forced: str | None = None


def backend(device: str = "cpu") -> str:
    """The backend that runs for tensors on `device` ("cpu", "cuda"): the forced one, otherwise the fastest it has.

    On a CPU that is "native" where its code can be built, which the first call does; elsewhere "cpu", with a warning.
    """
    if _forced is not None:
        return _forced
    return _best_on_cpu() if device == "cpu" else "reference"


@functools.cache
def _best_on_cpu() -> str:
    if (reason := why_not()) is None:
        return "native"
    warnings.warn(f"sparseq runs on torch's operators, which is slower than its native code: {reason}", stacklevel=2)
    return "cpu"


def set_backend(name: str | None) -> None:
    """Forces the backend `name` everywhere, or with None gives the choice back.

    Raises InputError for an unknown backend, and for one that cannot run on this machine, saying why.
    """
    global _forced
    if name is not None and name not in TABLES:
        raise InputError(f"unknown backend {name!r}: available are {', '.join(TABLES)}")
    if name == "native" and (reason := why_not()) is not None:
        raise InputError(f"backend 'native' cannot run here: {reason}")
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
    if name in _ON_CPU and device != "cpu":
        raise InputError(f"backend {name!r} is forced but runs on cpu tensors only, and {op} got {device} ones")
    return TABLES[name][op]


def keeps_residuals(device: str, weight_scale: Any, input_scale: Any, weight_bits: int, input_bits: int) -> bool:
    """Whether `qat_linear` on this device hands its integers to the backward, which then does not quantize again."""
    integers = qat_linear.uses_integers(weight_bits, input_bits)
    return backend(device) in _ON_CPU and integers and weight_scale is None and input_scale is None


set_backend(os.environ.get("SPARSEQ_BACKEND") or None)
