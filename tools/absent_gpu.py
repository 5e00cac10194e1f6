"""A stand-in for Triton's driver: compiles for a GPU that this machine does not have, and launches nothing.

Under it the host code of `sparseq_kernels.triton` runs from end to end on CPU tensors: it chooses configs for the GPU,
compiles for it, and hands its arguments to a launcher that only notes them. The tensors then hold nothing of meaning.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from sparseq_kernels import InputError, backends, dispatch
from sparseq_kernels.registry import OPS
from sparseq_kernels.triton.runtime import device
from sparseq_kernels.triton.runtime.availability import interpreted

KIB = 1024


@dataclass(frozen=True)
class Absent:
    """target: what Triton compiles for. processors, shared_bytes: as `sparseq_kernels.triton.device` has them.
    boards: what GPUs of the architecture have in their names."""

    target: GPUTarget
    processors: int
    shared_bytes: int
    boards: tuple[str, ...]


ARCHITECTURES = {
    "sm_80": Absent(GPUTarget("cuda", 80, 32), 108, 163 * KIB, ("A100", "A800")),
    "sm_89": Absent(GPUTarget("cuda", 89, 32), 128, 99 * KIB, ("L4", "RTX 40", "RTX 6000 Ada")),
    "sm_90": Absent(GPUTarget("cuda", 90, 32), 132, 227 * KIB, ("H100", "H200", "H800", "H20", "GH200")),
    "sm_100": Absent(GPUTarget("cuda", 100, 32), 148, 227 * KIB, ("B200", "B100")),
    "gfx942": Absent(GPUTarget("hip", "gfx942", 64), 304, 64 * KIB, ("MI300",)),
}
# Far above the index of any GPU that is here. Caches of kernels go by it, so that each stand-in begins without any.
_indices = itertools.count(1000)


@dataclass(frozen=True)
class Launch:
    """kernel: its name. args: all parameters by name, constants too."""

    kernel: str
    grid: tuple[int, int, int]
    args: dict[str, Any]


class _Utils:
    def __init__(self, gpu: Absent) -> None:
        self._gpu = gpu

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": self._gpu.shared_bytes, "multiprocessor_count": self._gpu.processors}

    def load_binary(self, *unused: object) -> tuple[int, int, int, int, int]:
        """(module, function, registers, spills, most threads a block): handles that nothing looks into."""
        return 1, 1, 0, 0, 1024


class AbsentDriver:
    """What Triton asks of a driver. launches: what was launched since it was made, if `record`."""

    def __init__(self, arch: str, record: bool = True) -> None:
        if arch not in ARCHITECTURES:
            raise InputError(f"unknown architecture {arch!r}: available are {', '.join(ARCHITECTURES)}")
        self.launches: list[Launch] = []
        self.utils = _Utils(ARCHITECTURES[arch])
        self._target = ARCHITECTURES[arch].target
        self._index = next(_indices)
        self._record = record

    def launcher_cls(self, source: Any, metadata: Any) -> Callable[..., None]:
        return functools.partial(self._note, source) if self._record else _launch_nothing

    def _note(self, source: Any, x: int, y: int, z: int, *rest: Any) -> None:
        # Between the grid and the kernel's own arguments: stream, function, two sets of metadata, two hooks.
        names = source.fn.arg_names
        self.launches.append(Launch(source.fn.__name__, (x, y, z), dict(zip(names, rest[6:], strict=True))))

    def get_current_device(self) -> int:
        return self._index

    def set_current_device(self, device: int) -> None: ...

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


def _launch_nothing(*unused: object) -> None: ...


@contextmanager
def absent_gpu(arch: str, name: str = "", record: bool = True) -> Iterator[AbsentDriver]:
    """Has Triton compile for `arch` within a `with` block, and this library's ops take CPU tensors to Triton.

    name: the GPU's, by which its measured configs are found. record: whether to keep what is launched.
    """
    if interpreted():
        raise InputError("no GPU can be stood in for under TRITON_INTERPRET: its kernels cannot be compiled")
    active, best, described, device_of = driver._active, backends._best, device._described, dispatch.device_of
    refused = backends._refused
    found = AbsentDriver(arch, record)
    driver.set_active(found)
    backends._best = functools.cache(lambda kind: "triton")
    backends._refused = functools.cache(lambda name, kind: None)
    # What tensors hold is looked at on the CPU alone, and here means nothing.
    dispatch.device_of = lambda args: "cuda"
    device._described = functools.cache(lambda index: dataclasses.replace(described(index), name=name))
    _forget_shortcuts()
    try:
        yield found
    finally:
        driver.set_active(active)
        backends._best, device._described, dispatch.device_of = best, described, device_of
        backends._refused = refused
        _forget_shortcuts()


def _forget_shortcuts() -> None:
    for op in OPS.values():
        if isinstance(op, dispatch.Op):
            op.forget_shortcuts()
