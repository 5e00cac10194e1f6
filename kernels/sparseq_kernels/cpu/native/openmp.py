"""The OpenMP runtime that torch runs on, and that the native code shares with it: one pool of threads serves both."""

import contextlib
import ctypes
import functools
import os
import threading
from pathlib import Path

import torch

# A function that code of gcc calls. LLVM's runtime and Intel's have it too.
_FUNCTION = "GOMP_parallel"
_PAUSE_HARD = 2  # omp_pause_hard, of OpenMP 5.0's omp_pause_resource_t

# Whether the pool's threads are this process's: not so in the child of a fork before which they were not ended.
_pool_is_usable = True
_this_thread = threading.local()


class _Symbol(ctypes.Structure):
    """dladdr's Dl_info."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def threads() -> int:
    """How many threads native code may use: torch's number of them.

    It is given with each call, for OpenMP keeps a number for each thread, and `torch.set_num_threads` sets the
    caller's alone.
    """
    return torch.get_num_threads() if _pool_is_usable else 1


@functools.cache
def runtime() -> Path | None:
    """The file of the runtime that torch's calls of gcc's OpenMP functions reach; None if there is none."""
    if not hasattr(os, "RTLD_NOLOAD"):
        return None
    # The global scope goes first, as it does for torch: there is what LD_PRELOAD names, such as Intel's runtime.
    for library, mode in ((None, ctypes.DEFAULT_MODE), ("libtorch_cpu.so", os.RTLD_NOLOAD)):
        with contextlib.suppress(OSError, AttributeError):
            function = getattr(ctypes.CDLL(library, mode=mode), _FUNCTION)
            found = _Symbol()
            dladdr = ctypes.CDLL(None).dladdr
            dladdr.argtypes = (ctypes.c_void_p, ctypes.POINTER(_Symbol))
            if dladdr(ctypes.cast(function, ctypes.c_void_p), ctypes.byref(found)) and found.file:
                return Path(os.fsdecode(found.file))
    return None


def share() -> None:
    """Makes the runtime's functions visible to libraries that are loaded from now on and are not linked with it."""
    with contextlib.suppress(OSError):
        if (found := runtime()) is not None:
            ctypes.CDLL(str(found), mode=ctypes.RTLD_GLOBAL | os.RTLD_NOLOAD)


def _pause() -> bool:
    """Ends the threads that the calling thread's pool keeps for its next parallel region, which starts others. False if
    the runtime cannot, and its pool would be of no use to the child of a fork.

    GNU's runtime does not know of forks: in the child it would wait forever for threads that were not copied, whether
    torch's code or ours asks for them.
    """
    if (found := runtime()) is None:  # The code is linked with a runtime of the compiler's, out of reach here.
        return False
    if not _pool_is_usable:  # To end threads that are not there would take forever, too.
        return False
    try:
        library = ctypes.CDLL(str(found), mode=os.RTLD_NOLOAD)
    except OSError:
        return False
    if hasattr(library, "__kmpc_fork_call"):  # LLVM's, or Intel's: it begins anew in a child.
        return True
    # Not in GNU's runtime before gcc 9. It refuses inside of a parallel region.
    return hasattr(library, "omp_pause_resource_all") and library.omp_pause_resource_all(_PAUSE_HARD) == 0


def _before_fork() -> None:
    _this_thread.paused = _pause()


def _after_fork_in_child() -> None:
    global _pool_is_usable
    # A fork by C code, as uWSGI's, comes without _before_fork.
    _pool_is_usable = getattr(_this_thread, "paused", False)
    _forget()


def _forget() -> None:
    _this_thread.paused = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child, after_in_parent=_forget)
