"""Every way in which an op runs on this processor: the backends, and native code of each instruction set."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sparseq_kernels import use_backend
from sparseq_kernels.backends import runnable
from sparseq_kernels.instruction_sets import SETS, InstructionSet, available, use_instruction_set

NATIVE = [f"native {name}" for name in available()] if "native" in runnable() else []
CPU_BACKENDS = [*(name for name in runnable() if name not in ("triton", "native")), *NATIVE]


def _emulated() -> list[str]:
    """The instruction sets with AVX-512 that this processor lacks, as ones that it can run: the same code, with
    functions of AVX2 in place of the instructions. Registered last, they are never chosen unasked."""
    if not NATIVE or "avx2" not in available():
        return []
    header = Path(__file__).with_name("emulated_avx512.h")
    # Built anew when the header changes: what is built is named after its flags.
    digest = hashlib.sha256(header.read_bytes()).hexdigest()
    flags = (*SETS["avx2"].flags, "-Wno-psabi", "-include", str(header), f"-DEMULATED_BY_{digest[:16]}")
    found = []
    for name, more in (("avx512", ()), ("avx512_vnni", ("-DEMULATE_VNNI",))):
        if name not in available():
            SETS[f"emulated_{name}"] = InstructionSet(f"emulated_{name}", (*flags, *more), "AVX2")
            found.append(f"native emulated_{name}")
    return found


LACKING = _emulated()
# NATIVE, and native code for what this processor lacks, emulated: for tests of code that differs between them.
EMULATED = [*NATIVE, *(pytest.param(name, marks=pytest.mark.slow) for name in LACKING)]


@contextlib.contextmanager
def on(name: str) -> Iterator[None]:
    """The backend, and after a space its instruction set."""
    backend, _, instructions = name.partition(" ")
    with use_backend(backend), use_instruction_set(instructions or None):
        yield
