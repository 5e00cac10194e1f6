"""The instruction sets that the native code is compiled for, and the one that is used."""

import contextlib
import functools
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from .errors import InputError
from .torch_internals import has_vnni

_IS_X86 = platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")
_AVX2 = ("-mavx2", "-mfma")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl")


@dataclass(frozen=True)
class InstructionSet:
    """Code for one kind of processor.

    flags: the compiler's. needs: the least of torch's CPU capabilities with which it runs, which may be held back by
    ATEN_CPU_CAPABILITY. vnni: whether it needs AVX-512 VNNI too.
    """

    name: str
    flags: tuple[str, ...]
    needs: str = "DEFAULT"
    vnni: bool = False


# The best first. Elsewhere than on x86 the compiler takes what the machine has.
SETS = {
    one.name: one
    for one in (
        InstructionSet("avx512_vnni", (*_AVX512, "-mavx512vnni"), "AVX512", vnni=True),
        InstructionSet("avx512", _AVX512, "AVX512"),
        InstructionSet("avx2", _AVX2, "AVX2"),
        InstructionSet("portable", () if _IS_X86 else ("-march=native",)),
    )
}
# torch's names of what a processor has: one in a later place includes those before.
_CAPABILITIES = ("DEFAULT", "AVX2", "AVX512")
VARIABLE = "SPARSEQ_INSTRUCTION_SET"

_forced: str | None = os.environ.get(VARIABLE) or None


def instruction_set() -> str:
    """The instruction set of the native code: "avx512_vnni", "avx512", "avx2", or "portable" C.

    It is the best that the processor has, or the one that the variable SPARSEQ_INSTRUCTION_SET or
    `set_instruction_set` forces. InputError for a name in the variable that is unknown or cannot run here.
    """
    name = _forced  # Read once: another thread may replace it.
    if name is None:
        return _best()
    _check_once(name)
    return name


def set_instruction_set(name: str | None) -> None:
    """Forces an instruction set in the whole process; None takes the best. All of them give the same integers.

    Raises InputError for an unknown one, and for one that this processor does not have.
    """
    global _forced
    if name is not None:
        _check(name)
    _forced = name


@contextlib.contextmanager
def use_instruction_set(name: str | None) -> Iterator[None]:
    """`set_instruction_set` within a `with` block."""
    before = _forced
    set_instruction_set(name)
    try:
        yield
    finally:
        set_instruction_set(before)


def available() -> tuple[str, ...]:
    """The names of the instruction sets that this processor has, the best first."""
    return tuple(name for name in SETS if why_not(name) is None)


def why_not(name: str) -> str | None:
    """Why this processor cannot run the instruction set; None if it can."""
    wanted = SETS[name]
    if wanted.needs != "DEFAULT" and not _IS_X86:
        return f"it is of x86 processors, and this is {platform.machine()}"
    found = torch.backends.cpu.get_cpu_capability()
    has = _CAPABILITIES.index(found) if found in _CAPABILITIES else 0
    if has < _CAPABILITIES.index(wanted.needs):
        return f"torch finds {found} on this processor, and it needs {wanted.needs}"
    return "this processor has no AVX-512 VNNI" if wanted.vnni and not has_vnni() else None


@functools.cache
def _best() -> str:
    return available()[0]


def _check(name: str) -> None:
    where = f" in {VARIABLE}" if name == os.environ.get(VARIABLE) else ""
    if name not in SETS:
        raise InputError(f"unknown instruction set {name!r}{where}: there are {', '.join(SETS)}")
    if (reason := why_not(name)) is not None:
        raise InputError(f"instruction set {name!r}{where} cannot run here: {reason}")


_check_once = functools.cache(_check)
