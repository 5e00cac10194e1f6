"""The GPU that a kernel is planned for."""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from triton.runtime import driver

from .availability import interpreted

INTERPRETER = "interpreter"


@dataclass(frozen=True, eq=False)  # There is one object for each device: comparing and hashing it costs nothing.
class Device:
    """arch: "sm_90", "gfx942", or "interpreter". processors: how many programs run side by side, at one a processor.
    shared_bytes: shared memory that one program can have. name: as torch has it, empty where there is none."""

    arch: str
    processors: int
    shared_bytes: int
    name: str = ""

    @property
    def amd(self) -> bool:
        return self.arch.startswith("gfx")

    @functools.cached_property
    def dependent_launch(self) -> bool:
        """Whether a kernel may begin before the one before it has ended, and then wait for it: on Hopper and newer."""
        return self.arch.startswith("sm_") and int(self.arch.removeprefix("sm_")) >= 90


def current() -> Device:
    """The current device, as Triton's driver describes it."""
    return _INTERPRETER if interpreted() else _described(driver.active.get_current_device())


def current_and_stream() -> tuple[Device, Any]:
    """The current device and its current stream, as a compiled kernel takes it; None for the interpreter."""
    if interpreted():
        return _INTERPRETER, None
    active = driver.active
    index = active.get_current_device()
    return _described(index), active.get_current_stream(index)


@functools.cache
def _described(index: int) -> Device:
    target = driver.active.get_current_target()
    properties = driver.active.utils.get_device_properties(index)
    arch = str(target.arch) if target.backend == "hip" else f"sm_{target.arch}"
    name = torch.cuda.get_device_name(index) if index < torch.cuda.device_count() else ""
    return Device(arch.partition(":")[0], properties["multiprocessor_count"], properties["max_shared_mem"], name)


# Few programs, so that the loop of a persistent kernel is taken more than once.
_INTERPRETER = Device(INTERPRETER, processors=3, shared_bytes=1 << 20)
