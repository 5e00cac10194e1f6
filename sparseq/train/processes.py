"""The process group that a launcher such as torchrun announces: checked, then joined."""

import os
import socket
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from sparseq.errors import InputError
from sparseq.reading import brief

MEETING = timedelta(minutes=10)
"""How long the processes wait for each other to come."""

WAITING = timedelta(days=1)
"""How long they wait for each other later: computing a teacher's logits in one process can take hours."""

_MPI_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
_WAY_OUT = "start the processes with torchrun, which sets it, or unset WORLD_SIZE, RANK and LOCAL_RANK for a single one"


def start_processes() -> None:
    """Joins the process group that torchrun announces, if any; once.

    Started here and not by accelerate because there the CPU's group has a limit of 30 minutes on any wait. InputError,
    naming the variable: what is announced is not whole, or makes no sense; the other processes do not come.
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
    if size == 1:  # nobody to wait for: accelerate joins this group, and would look for the address for a long time
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
    """The whole number in an environment variable. InputError: not set, none, or out of range."""
    text = os.environ.get(name, "")
    if name not in os.environ:
        raise InputError(f"{name} is not set, though other variables announce several processes: {_WAY_OUT}")
    within = f"from {low} to {high}" if high is not None else f"of at least {low}"
    if not text.isdecimal() or int(text) < low or (high is not None and int(text) > high):
        raise InputError(f"{name} is {text!r}, and must be a whole number {within}: {_WAY_OUT}")
    return int(text)
