"""What the run finds under it: processes, device, arithmetic, and the libraries' chatter."""

import logging
import os
import platform
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
import transformers

import sparseq
from sparseq.errors import RAISED_ELSEWHERE, InputError, MachineError
from sparseq.reading import brief
from sparseq_kernels import backend

T = TypeVar("T")

# Of every evaluation and calibration, whatever a model was trained in.
EVALUATION_PRECISION = "fp32"


def rank() -> int:
    """This process's number; 0 writes files and talks."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def barrier() -> None:
    """Waits for the other processes."""
    if dist.is_initialized():
        dist.barrier()


def in_first(function: Callable[[], T]) -> T:
    """What `function` returns in the first process, in every process. Where it raises there, every process does: the
    others InputError or MachineError, with a note that the first one tells it."""
    if world_size() == 1:
        return function()
    value, error = _attempt(function) if rank() == 0 else (None, None)
    outcome: list[Any] = [(value, _shareable(error)) if rank() == 0 else None]
    dist.broadcast_object_list(outcome, src=0)
    value, shared = outcome[0]
    _raise_first([shared], error)
    return cast(T, value)


def in_all(function: Callable[[], T]) -> T:
    """What `function` returns in each process. Where it raises in some, every process raises what the first of them
    did, as `in_first` does: none waits for one that has given up."""
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
    """An error as other processes raise it; of a kind that they have, too."""
    if error is None or isinstance(error, InputError | MachineError):
        return error
    return MachineError(f"process {rank()} failed ({type(error).__name__}: {brief(error)})")


def _raise_first(errors: Sequence[InputError | MachineError | None], own: Exception | None) -> None:
    """Raises the first of the processes' `errors`, if any: in its own process as it came, elsewhere with a note, by
    which it is told once."""
    process = next((number for number, error in enumerate(errors) if error is not None), None)
    if process is None:
        return
    if process == rank() and own is not None:
        raise own
    error = errors[process]
    assert error is not None
    error.add_note(RAISED_ELSEWHERE)
    raise error


def processor() -> str:
    """The name of what computes here, as its maker calls it: the GPU's, otherwise the CPU's."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(device())
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            named = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        named = []
    return named[0] if named else platform.processor() or platform.machine()


def device() -> torch.device:
    """Where models run: this process's GPU if there is one, otherwise the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) if dist.is_initialized() else 0)
    return torch.device("cpu")


def conditions(precision: str, *, ops: bool) -> dict[str, str]:
    """What rounds the sums of a run here beside its settings and its data, by name: the same run under others can end
    with other numbers. precision: of the arithmetic. ops: whether sparseq's own are used, which have backends."""
    found = {
        "threads": str(torch.get_num_threads()),
        "processor": processor(),
        "precision": precision,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "sparseq": sparseq.__version__,
    }
    return {**found, "backend": backend(device().type)} if ops else found


def computes_bf16() -> bool:
    """Whether bf16 products run in hardware here: a GPU that has them, or a CPU with avx512_bf16 or amx_bf16."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line.split() for line in file if line.startswith("flags")), [])
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


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


def quiet_libraries() -> None:
    """Leaves errors as transformers', datasets' and torch's only messages: the run reports its own progress."""
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    for name in ("accelerate", "torch.distributed", "torch.nn.parallel.distributed", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|accelerate|torch|datasets)\b")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(transformers|accelerate|torch)\b")
