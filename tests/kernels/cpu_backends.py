"""Every way in which an op runs on this processor: the backends, and native code of each instruction set."""

import contextlib
from collections.abc import Iterator

from sparseq_kernels import use_backend
from sparseq_kernels.backends import runnable
from sparseq_kernels.instruction_sets import available, use_instruction_set

NATIVE = [f"native {name}" for name in available()] if "native" in runnable() else []
CPU_BACKENDS = [*(name for name in runnable() if name not in ("triton", "native")), *NATIVE]


@contextlib.contextmanager
def on(name: str) -> Iterator[None]:
    """The backend, and after a space its instruction set."""
    backend, _, instructions = name.partition(" ")
    with use_backend(backend), use_instruction_set(instructions or None):
        yield
