"""The instruction sets that the native code is compiled for, and the one that is used.

setup.py reads SETS without torch, which is therefore imported where it is needed.
"""

import contextlib
import functools
import os
import platform
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .errors import InputError

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

    It is the best that the processor has and the compiler knows, or the one that the variable SPARSEQ_INSTRUCTION_SET
    or `set_instruction_set` forces. InputError for a name in the variable that is unknown or cannot run here, and on a
    processor that has none of them.
    """
    name = _forced  # Read once: another thread may replace it.
    if name is None:
        return _best()
    _check_once(name)
    return name


def set_instruction_set(name: str | None) -> None:
    """Forces an instruction set in the whole process; None takes the best. All of them give the same integers.

    Raises InputError for an unknown one, and for one that this processor does not have or the compiler does not know.
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
    import torch

    from .torch_internals import has_vnni

    wanted = SETS[name]
    if wanted.needs != "DEFAULT" and not _IS_X86:
        return f"it is of x86 processors, and this is {platform.machine()}"
    found = torch.backends.cpu.get_cpu_capability()
    has = _CAPABILITIES.index(found) if found in _CAPABILITIES else 0
    if has < _CAPABILITIES.index(wanted.needs):
        return f"torch finds {found} on this processor, and it needs {wanted.needs}"
    return "this processor has no AVX-512 VNNI" if wanted.vnni and not has_vnni() else None


def _ask_nobody(name: str) -> str | None:
    return None


_why_not_built: Callable[[str], str | None] = _ask_nobody


def passed_over() -> dict[str, str]:
    """The sets that are better than the one in use and could run here, with the reason why their code cannot be had.
    Empty if one is forced."""
    if _forced is not None:
        return {}
    names = available()
    better = names[: names.index(_best())]
    return {name: reason for name in better if (reason := _why_not_built(name)) is not None}


def ask_builder(why_not_built: Callable[[str], str | None]) -> None:
    """Has `why_not_built` asked for the reason why the code of a set cannot be had; None if it can, or if no set's can,
    because there is no compiler at all."""
    global _why_not_built
    _why_not_built = why_not_built
    forget()


def forget() -> None:
    """Forgets what was found out of the processor and the compiler."""
    for found in (why_none, _best, _check_once):
        found.cache_clear()


@functools.cache
def why_none() -> str | None:
    """Why this processor cannot run any of the instruction sets; None if it can."""
    if available():
        return None
    reasons = "; ".join(f"{name}: {why_not(name)}" for name in SETS)
    return f"this processor has none of the native code's instruction sets ({reasons})"


@functools.cache
def _best() -> str:
    if (reason := why_none()) is not None:
        raise InputError(reason)
    first, *others = available()
    if (reason := _why_not_built(first)) is None:
        return first
    for name in others:
        if _why_not_built(name) is None:
            message = f"sparseq's native code uses {name}, though this processor has {first}, which is faster: {reason}"
            warnings.warn(message, stacklevel=2)
            return name
    return first  # Whoever wants its code is told why there is none.


def _check(name: str) -> None:
    where = f" in {VARIABLE}" if name == os.environ.get(VARIABLE) else ""
    if name not in SETS:
        raise InputError(f"unknown instruction set {name!r}{where}: there are {', '.join(SETS)}")
    if (reason := why_not(name) or _why_not_built(name)) is not None:
        raise InputError(f"instruction set {name!r}{where} cannot run here: {reason}")


_check_once = functools.cache(_check)
