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
from typing import Any

import torch

from .errors import InputError
from .numerics import any_fp64
from .registry import OPS, Backend, Implementation, OpDefinition, find_implementation, find_shortcut, registered

REFERENCE = Backend("reference", f"{__package__}.reference", lambda device: None)


def _found() -> dict[str, Backend]:
    """The reference, and what each subpackage with a module `backend` declares there as BACKENDS."""
    backends = {REFERENCE.name: REFERENCE}
    [root] = import_module(__package__).__path__
    for package in pkgutil.iter_modules([root]):
        # By the files: to look for a module by its name would import the package that it is in.
        if any(module.name == "backend" for module in pkgutil.iter_modules([f"{root}/{package.name}"])):
            found = import_module(f"{__package__}.{package.name}.backend")
            backends |= {one.name: one for one in found.BACKENDS}
    return backends


BACKENDS = _found()

# What `use_backend` forces, in this thread or in this task of asyncio. UNSET: nothing. None: the library chooses,
# whatever `set_backend` said.
UNSET = ""
in_context: ContextVar[str | None] = ContextVar("sparseq_backend", default=UNSET)
# What `set_backend` forces, and until then the environment. That is validated when it is first used: importing this
# module, which importing torch may do, must not fail for it.
for_process: str | None = os.environ.get("SPARSEQ_BACKEND") or None


def why_not(name: str, device: str) -> str | None:
    """Why the backend cannot run on tensors of `device` ("cpu", "cuda"); None if it can."""
    return known(name).why_not(device)


def known(name: str) -> Backend:
    """The backend of that name. InputError if there is none."""
    if name not in BACKENDS:
        where = " in SPARSEQ_BACKEND" if name == os.environ.get("SPARSEQ_BACKEND") else ""
        raise InputError(f"unknown backend {name!r}{where}: available are {', '.join(BACKENDS)}")
    return BACKENDS[name]


def runnable(device: str = "cpu") -> tuple[str, ...]:
    """The backends that can run on tensors of `device` here."""
    return tuple(name for name in BACKENDS if why_not(name, device) is None)


def backend(device: str | torch.device = "cpu", details: bool = False) -> str:
    """The backend that runs for tensors on `device`, a CPU or a GPU: the forced one, otherwise the device's own.

    details: whether to say more than its name, such as "native (avx2, 2 threads, prebuilt)": the instruction set, the
        threads, and whether the code came with the package or was built here.

    On a CPU that is "native" where its code came with the package or can be built, which the first call does;
    elsewhere "cpu", with a warning.
    On a GPU it is "triton"; without a Triton that works "reference", with a warning. InputError for another device.
    """
    try:
        kind = torch.device(device).type
    except (RuntimeError, TypeError):
        kind = str(device)
    if kind not in ("cpu", "cuda"):
        raise InputError(f"sparseq has backends for the devices cpu and cuda, not for {device!r}")
    found = BACKENDS[in_use(kind)]
    return f"{found.name} ({found.details()})" if details and found.details is not None else found.name


def in_use(device: str) -> str:
    """As `backend`, for the type of any tensor's device: "meta" is served as "cuda" is."""
    name = forced()
    if name is None:
        return _best(device)
    _check_once(name)
    return name


@functools.cache
def _best(device: str) -> str:
    choices = [one for one in BACKENDS.values() if device in one.preferred_on]
    fast = choices[0] if choices else next(one for one in BACKENDS.values() if "cuda" in one.preferred_on)
    if (reason := fast.why_not(device)) is None:
        return fast.name
    name, description = fast.otherwise
    message = f"on {device} sparseq runs on {description}, which is slower than its backend {fast.name!r}: {reason}"
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
    known(name)
    reasons = [why_not(name, device) for device in ("cpu", "cuda") if device == "cpu" or torch.cuda.is_available()]
    if None not in reasons:
        raise InputError(f"backend {name!r} cannot run here: {reasons[0]}")


# Of a name that comes from the environment.
_check_once = functools.cache(_check)


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Forces a backend within a `with` block, in this thread alone; None lets the library choose there.

    It is a context variable: other threads, and tasks of asyncio that began elsewhere, do not see it. An eager backward
    runs on the backend of its forward, in whichever thread autograd runs it. A compiled function keeps what the backend
    in use saved for the backward when it was compiled, and activation checkpointing runs a forward again on the backend
    that is in use then: force the same backend for all of it. Raises InputError as `set_backend`.
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
    elif (reason := _refused(known(name).name, device)) is not None:
        raise InputError(f"backend {name!r} is forced, but {reason}, and {op.name} got {device} ones")
    return _implementations(name, op).run


def saves(op: OpDefinition, device: str, args: tuple[Any, ...]) -> str:
    """What the forward of `op` saves for its backward, as `Implementation.saves` has it."""
    name = in_use(device)
    fp64 = not BACKENDS[name].runs_fp64 and any_fp64(args)
    return "nothing" if fp64 else _implementations(name, op).saves


def shortcut(op: OpDefinition, device: str, forced: str | None) -> Callable[..., Any] | None:
    """The shortcut for `op` on `device` where the backend `forced` is; None if there is none, or it cannot run."""
    name = known(forced).name if forced is not None else _best(device)
    if _refused(name, device) is not None:
        return None
    load(name)
    return find_shortcut(name, op.name)


@functools.cache
def _implementations(name: str, op: OpDefinition) -> Implementation:
    backend = known(name)
    load(name)
    found = find_implementation(name, op.name)
    if found is None:
        return _implementations(backend.based_on, op) if backend.based_on else Implementation(op.formula)
    if backend.runs_fp64:
        return found
    return Implementation(functools.partial(_unless_fp64, found.run, op.formula), found.saves)


def _unless_fp64(run: Callable[..., Any], formula: Callable[..., Any], *args: Any) -> Any:
    return (formula if any_fp64(args) else run)(*args)


@functools.cache
def load(name: str) -> None:
    """Imports the backend's modules, which register what they implement. ValueError for an unknown op or backend."""
    package = import_module(BACKENDS[name].package)
    for module in pkgutil.iter_modules(package.__path__):
        if not module.ispkg:
            import_module(f"{package.__name__}.{module.name}")
    for other, op in registered():
        if other not in BACKENDS or (OPS and op not in OPS):
            raise ValueError(
                f"an implementation of {op!r} for {other!r} is registered, and there is no such op or backend"
            )


@functools.cache
def _refused(name: str, device: str) -> str | None:
    return why_not(name, device)
