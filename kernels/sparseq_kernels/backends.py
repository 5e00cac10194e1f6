"""Which implementation of an op runs: visible, and forceable.

A backend is a table from op to function, and each has every op. `backend()` names the one in use; `use_backend`,
`set_backend` or SPARSEQ_BACKEND in the environment force one, and one that cannot run says why.
"""

import functools
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .cpu import int8_linear as cpu_int8_linear
from .cpu import masked_linear as cpu_masked_linear
from .cpu import qat_linear as cpu_qat_linear
from .cpu import quantize_rows as cpu_quantize_rows
from .cpu.native import why_not as why_not_native
from .errors import InputError
from .numerics import any_fp64
from .reference import (
    fake_quant,
    gelu_quantize_rows,
    int8_embedding,
    int8_linear,
    int8_linear_backward,
    layer_norm_quantize_rows,
    magnitude_mask,
    masked_linear,
    qat_linear,
    quantize_rows,
    sparse_int8_linear,
)
from .triton.runtime.availability import interpreted
from .triton.runtime.availability import why_not as why_not_triton

Implementation = Callable[..., Any]
Table = dict[str, Implementation]

REFERENCE: Table = {
    "quantize_rows": quantize_rows.quantize_rows,
    "layer_norm_quantize_rows": layer_norm_quantize_rows.layer_norm_quantize_rows,
    "gelu_quantize_rows": gelu_quantize_rows.gelu_quantize_rows,
    "fake_quant": fake_quant.fake_quant,
    "fake_quant_backward": fake_quant.fake_quant_backward,
    "qat_linear": qat_linear.qat_linear,
    "qat_linear_backward": qat_linear.qat_linear_backward,
    "int8_linear": int8_linear.int8_linear,
    "int8_linear_backward": int8_linear_backward.int8_linear_backward,
    "int8_embedding": int8_embedding.int8_embedding,
    "block_sparse_int8_linear": sparse_int8_linear.block_sparse_int8_linear,
    "bitmask_int8_linear": sparse_int8_linear.bitmask_int8_linear,
    "semi_structured_int8_linear": sparse_int8_linear.semi_structured_int8_linear,
    "masked_linear": masked_linear.masked_linear,
    "masked_linear_backward": masked_linear.masked_linear_backward,
    "magnitude_mask": magnitude_mask.magnitude_mask,
}

_CPU_MODULES: Table = {
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

BACKENDS = ("reference", "cpu", "native", "triton")
_ON_CPU = ("cpu", "native")
_for_process: str | None = None
# What `use_backend` forces where it is in force: in this thread, or in this task of asyncio.
_UNSET = ""
_in_context: ContextVar[str | None] = ContextVar("sparseq_backend", default=_UNSET)


@functools.cache
def table(name: str) -> Table:
    """The backend's function for each op. Triton's are imported here and not before."""
    if name == "triton":
        from .triton.table import TRITON

        return REFERENCE | TRITON
    return {"reference": REFERENCE, "cpu": CPU, "native": NATIVE}[name]


def why_not(name: str, device: str) -> str | None:
    """Why the backend cannot run on tensors of `device` ("cpu", "cuda"); None if it can."""
    if name == "triton":
        if device == "cpu" and not interpreted():
            return "it runs on GPU tensors, and on cpu ones only in Triton's interpreter (TRITON_INTERPRET=1)"
        return why_not_triton()
    if name in _ON_CPU and device != "cpu":
        return "it runs on cpu tensors only"
    return why_not_native() if name == "native" else None


def runnable(device: str = "cpu") -> tuple[str, ...]:
    """The backends that can run on tensors of `device` here."""
    return tuple(name for name in BACKENDS if why_not(name, device) is None)


def backend(device: str = "cpu") -> str:
    """The backend that runs for tensors on `device` ("cpu", "cuda"): the forced one, otherwise the fastest it has.

    On a CPU that is "native" where its code can be built, which the first call does; elsewhere "cpu", with a warning.
    On a GPU it is "triton"; without a Triton that works "reference", with a warning.
    """
    name = forced()
    return name if name is not None else _best(device)


# (the fastest backend, what stands in where it cannot run, and what that is)
_CHOICES = {
    "cpu": ("native", "cpu", "torch's operators"),
    "cuda": ("triton", "reference", "its reference implementation"),
}


@functools.cache
def _best(device: str) -> str:
    fast, plain, runs_on = _CHOICES.get(device, _CHOICES["cuda"])
    if (reason := why_not(fast, device)) is None:
        return fast
    message = f"on {device} sparseq runs on {runs_on}, which is slower than its backend {fast!r}: {reason}"
    warnings.warn(message, stacklevel=2)
    return plain


def forced() -> str | None:
    """The backend that is forced here, by `use_backend` or else by `set_backend`; None if none is."""
    found = _in_context.get()
    return _for_process if found is _UNSET else found


def set_backend(name: str | None) -> None:
    """Forces the backend `name` in the whole process, but for what a `use_backend` surrounds; with None gives the
    choice back.

    Raises InputError for an unknown backend, and for one that cannot run on this machine, saying why.
    """
    global _for_process
    _check(name)
    _for_process = name


def _check(name: str | None) -> None:
    if name is None:
        return
    if name not in BACKENDS:
        raise InputError(f"unknown backend {name!r}: available are {', '.join(BACKENDS)}")
    reasons = [why_not(name, device) for device in ("cpu", "cuda") if device == "cpu" or torch.cuda.is_available()]
    if None not in reasons:
        raise InputError(f"backend {name!r} cannot run here: {reasons[0]}")


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Forces a backend within a `with` block, in this thread alone; None lets the library choose there.

    It is a context variable: other threads, and tasks of asyncio that began elsewhere, do not see it. A backward runs
    on the backend of its forward, whichever thread autograd takes for it. Raises InputError as `set_backend`.
    """
    _check(name)
    with scope(name):
        yield


@contextmanager
def scope(name: str | None) -> Iterator[None]:
    """`use_backend` of what `forced` returned: nothing to check."""
    token = _in_context.set(name)
    try:
        yield
    finally:
        _in_context.reset(token)


def implementation(op: str, device: str) -> Implementation:
    """The function that runs `op` on tensors of `device`; InputError where a forced backend cannot."""
    name = forced()
    if name is None:
        return table(_best(device))[op]
    if (reason := _refused(name, device)) is not None:
        raise InputError(f"backend {name!r} is forced, but {reason}, and {op} got {device} ones")
    return table(name)[op]


@functools.cache
def _refused(name: str, device: str) -> str | None:
    return why_not(name, device)


class Residuals(NamedTuple):
    """What `qat_linear` hands to its backward."""

    levels: bool
    x_scale: bool
    w_scale: bool


def residuals(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    weight_scale: Tensor | None,
    input_scale: Tensor | None,
    weight_bits: int,
    input_bits: int,
) -> Residuals:
    """What `qat_linear` of these arguments returns beside y. With the levels, the backward does not quantize again and
    needs no x; Triton's quantizes again, by the scales that the forward found. fp64 is the reference's there."""
    name = backend(x.device.type)
    if name == "triton" and not any_fp64((x, weight, bias, weight_scale, input_scale)):
        return Residuals(False, input_scale is None, weight_scale is None)
    learned = weight_scale is not None or input_scale is not None
    kept = name in _ON_CPU and qat_linear.uses_integers(weight_bits, input_bits) and not learned
    return Residuals(kept, kept, kept)


set_backend(os.environ.get("SPARSEQ_BACKEND") or None)
