"""The processes of a run: joining the group that torchrun announces, and sharing results and errors."""

import os
import socket
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from sparseq.errors import RAISED_ELSEWHERE, InputError, MachineError
from sparseq.reading import brief

T = TypeVar("T")

MEETING = timedelta(minutes=10)
"""How long the processes wait for each other to join."""

WAITING = timedelta(days=1)
"""How long they wait for each other later: computing a teacher's logits in one process can take hours."""

_MPI_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_WAY_OUT = "start the processes with torchrun, which sets it, or unset WORLD_SIZE, RANK and LOCAL_RANK for a single one"


def start_processes() -> None:
    """Joins the process group that torchrun announces, if any; once.

    This is not left to accelerate, which limits any wait in a CPU group to 30 minutes. Raises InputError, naming the
    variable, if the announcement is incomplete or invalid, and if the other processes do not join.
    """
    if dist.is_initialized():
        return
    size = _number("WORLD_SIZE", 1) if "WORLD_SIZE" in os.environ else 1
    if size == 1 and os.environ.get("LOCAL_RANK", "-1") == "-1":
        for name in _MPI_SIZES:
            if os.environ.get(name, "1") != "1":
                raise InputError(
                    f"{name} is {os.environ[name]}: started by mpirun or srun, the processes do not find each other; "
                    "start them with torchrun"
                )
        return
    size = _number("WORLD_SIZE", 1)
    rank = _number("RANK", 0, size - 1)
    port = _number("MASTER_PORT", 0, 65535)
    if not (address := os.environ.get("MASTER_ADDR")):
        raise InputError(f"MASTER_ADDR is not set, and WORLD_SIZE is {size}: {_WAY_OUT}")
    if torch.cuda.is_available():
        torch.cuda.set_device(_number("LOCAL_RANK", 0, torch.cuda.device_count() - 1))
    if size == 1:  # a single process: accelerate joins this group, and would search for a wrong address for a long time
        _met(lambda: socket.getaddrinfo(address, port), f"process 0 of 1 cannot find {address}:{port} (MASTER_ADDR)")
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"

    def join() -> None:
        store, *_ = next(rendezvous("env://", timeout=MEETING))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=WAITING)

    _met(join, f"process {rank} of {size} cannot meet the others at {address}:{port} (MASTER_ADDR, MASTER_PORT)")


def _met(join: Callable[[], object], what: str) -> None:
    try:
        join()
    except (dist.DistError, ValueError, OSError) as error:
        raise InputError(
            f"{what}: {brief(error)}; start them all, at an address and a free port that each can reach"
        ) from error


def _number(name: str, low: int, high: int | None = None) -> int:
    """The whole number in an environment variable. Raises InputError if it is not set, invalid, or out of range."""
    text = os.environ.get(name, "")
    if name not in os.environ:
        raise InputError(f"{name} is not set, though other variables announce several processes: {_WAY_OUT}")
    within = f"from {low} to {high}" if high is not None else f"of at least {low}"
    if not text.isdecimal() or int(text) < low or (high is not None and int(text) > high):
        raise InputError(f"{name} is {text!r}, and must be a whole number {within}: {_WAY_OUT}")
    return int(text)


def rank() -> int:
    """This process's number; process 0 writes files and messages."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Waits for the other processes."""
    if dist.is_initialized():
        dist.barrier()


def in_first(function: Callable[[], T]) -> T:
    """Calls `function` in the first process, and returns its result in every process.

    If it raises there, every process raises: the others InputError or MachineError, with a note that the first one
    reports it.
    """
    if world_size() == 1:
        return function()
    value, error = _attempt(function) if rank() == 0 else (None, None)
    outcome: list[Any] = [(value, _shareable(error)) if rank() == 0 else None]
    dist.broadcast_object_list(outcome, src=0)
    value, shared = outcome[0]
    _raise_first([shared], error)
    return cast(T, value)


def in_all(function: Callable[[], T]) -> T:
    """Calls `function` in each process, and returns its result.

    If it raises in some processes, every process raises the error of the first of them, as with `in_first`, so that
    none waits for one that has failed.
    """
    if world_size() == 1:
        return function()
    value, error = _attempt(function)
    errors: list[InputError | MachineError | None] = [None] * world_size()
    dist.all_gather_object(errors, _shareable(error))
    _raise_first(errors, error)
    return cast(T, value)


def _attempt(function: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return function(), None
    except Exception as error:
        return None, error


def _shareable(error: Exception | None) -> InputError | MachineError | None:
    """An error in the form that other processes raise: InputError or MachineError."""
    if error is None or isinstance(error, InputError | MachineError):
        return error
    return MachineError(f"process {rank()} failed ({type(error).__name__}: {brief(error)})")


def _raise_first(errors: Sequence[InputError | MachineError | None], own: Exception | None) -> None:
    """Raises the first of the processes' `errors`, if any.

    In its own process the error is unchanged; elsewhere it has a note, so that it is reported once.
    """
    process = next((number for number, error in enumerate(errors) if error is not None), None)
    if process is None:
        return
    if process == rank() and own is not None:
        raise own
    error = errors[process]
    assert error is not None
    # As `add_note` does, which Python 3.10 does not have.
    vars(error)["__notes__"] = [*vars(error).get("__notes__", ()), RAISED_ELSEWHERE]
    raise error
