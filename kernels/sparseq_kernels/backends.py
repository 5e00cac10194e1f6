"""Which backend runs an op: found in the package, chosen by the device, or forced.

`backend()` names the one in use. `use_backend`, `set_backend` or SPARSEQ_BACKEND in the environment force one; one that
cannot run says why. Every op runs on every backend: where a backend has no implementation, the reference runs.
"""

import functools
import os
import pkgutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch

from .errors import InputError
from .numerics import any_fp64
from .registry import Backend, Implementation, OpDefinition, find_implementation, find_shortcut

REFERENCE = Backend("reference", f"{__package__}.reference", lambda device: None)


def _found() -> dict[str, Backend]:
    """The reference, and what each subpackage with a module `backend` declares there as BACKENDS."""
    backends = {REFERENCE.name: REFERENCE}
    for module in pkgutil.iter_modules(import_module(__package__).__path__):
        name = f"{__package__}.{module.name}.backend"
        if module.ispkg and find_spec(name) is not None:
            backends |= {one.name: one for one in import_module(name).BACKENDS}
    return backends


BACKENDS = _found()

# A backend that `use_backend` forces: in this thread, or in this task of asyncio.
UNSET = ""
in_context: ContextVar[str | None] = ContextVar("sparseq_backend", default=UNSET)
for_process: str | None = None


def why_not(name: str, device: str) -> str | None:
    """Why the backend cannot run on tensors of `device` ("cpu", "cuda"); None if it can."""
    return BACKENDS[name].why_not(device)


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


@functools.cache
def _best(device: str) -> str:
    choices = [one for one in BACKENDS.values() if device in one.preferred_on]
    fast = choices[0] if choices else next(one for one in BACKENDS.values() if "cuda" in one.preferred_on)
    if (reason := fast.why_not(device)) is None:
        return fast.name
    name, what = fast.slower
    message = f"on {device} sparseq runs on {what}, which is slower than its backend {fast.name!r}: {reason}"
    warnings.warn(message, stacklevel=2)
    return name


def forced() -> str | None:
    """The backend that is forced here, by `use_backend` or else by `set_backend`; None if none is."""
    found = in_context.get()
    return for_process if found is UNSET else found


def set_backend(name: str | None) -> None:
    """Forces the backend `name` in the whole process, except within a `use_backend`. None lets the library choose.

    Raises InputError for an unknown backend, and for one that cannot run on this machine, saying why.
    """
    global for_process
    _check(name)
    for_process = name


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
    on the backend of its forward, in whichever thread autograd runs it. Raises InputError as `set_backend`.
    """
    _check(name)
    with scope(name):
        yield


@contextmanager
def scope(name: str | None) -> Iterator[None]:
    """`use_backend` of a name that `forced` returned, without checking it again."""
    token = in_context.set(name)
    try:
        yield
    finally:
        in_context.reset(token)


def implementation(op: OpDefinition, device: str) -> Callable[..., Any]:
    """The function that runs `op` on tensors of `device`. InputError where a forced backend cannot run."""
    name = forced()
    if name is None:
        name = _best(device)
    elif (reason := _refused(name, device)) is not None:
        raise InputError(f"backend {name!r} is forced, but {reason}, and {op.name} got {device} ones")
    return _implementations(name, op).run


def saves(op: OpDefinition, device: str, args: tuple[Any, ...]) -> str:
    """What the forward of `op` saves for its backward, as `Implementation.saves` has it."""
    name = backend(device)
    fp64 = not BACKENDS[name].runs_fp64 and any_fp64(args)
    return "nothing" if fp64 else _implementations(name, op).saves


def shortcut(op: OpDefinition, device: str) -> Callable[..., Any] | None:
    """The shortcut for `op` of the backend in use on `device`; None if there is none, or the backend cannot run."""
    name = backend(device)
    if _refused(name, device) is not None:
        return None
    load(name)
    return find_shortcut(name, op.name)


@functools.cache
def _implementations(name: str, op: OpDefinition) -> Implementation:
    load(name)
    found = find_implementation(name, op.name)
    if found is None:
        return Implementation(op.formula)
    if BACKENDS[name].runs_fp64:
        return found
    return Implementation(functools.partial(_unless_fp64, found.run, op.formula), found.saves)


def _unless_fp64(run: Callable[..., Any], formula: Callable[..., Any], *args: Any) -> Any:
    return (formula if any_fp64(args) else run)(*args)


@functools.cache
def load(name: str) -> None:
    """Imports the backend's modules, which register what they implement."""
    package = import_module(BACKENDS[name].package)
    for module in pkgutil.iter_modules(package.__path__):
        if not module.ispkg:
            import_module(f"{package.__name__}.{module.name}")


@functools.cache
def _refused(name: str, device: str) -> str | None:
    return why_not(name, device)


set_backend(os.environ.get("SPARSEQ_BACKEND") or None)
