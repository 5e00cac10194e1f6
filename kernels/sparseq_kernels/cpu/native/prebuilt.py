"""The native code that a wheel brings: one library for each instruction set, made with the wheel.

Nothing here needs torch: setup.py builds wheels with it, where there is none. The libraries leave OpenMP's functions to
be found at load, in the runtime that serves torch (`openmp`), and need nothing else but the C library.
"""

import ctypes
import hashlib
import json
import os
import platform
import re
import sys
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...instruction_sets import SETS
from .compiler import (
    FLAGS,
    HEADERS,
    SOURCES,
    CompileError,
    UnavailableError,
    build_library,
    find_compiler,
    is_clang,
)

FOLDER = Path(__file__).with_name("libraries")
# Of the folder's libraries: the platform, and of each instruction set what it was built of and the sha256 of its bytes.
ABOUT = "about.json"
# The C library of the oldest systems that a wheel may be for: pip of torch's oldest release knows no older tag.
OLDEST_GLIBC = (2, 17)

_warned = False


def load(name: str) -> ctypes.CDLL | None:
    """The library of an instruction set that came with the package. None if none came, or if the C files here are
    others than it was built of; and with a warning, the first time, if it cannot be used."""
    if not (FOLDER / ABOUT).exists():
        return None
    try:
        return _load(name)
    except UnavailableError as error:
        reason = str(error)
    except OSError as error:
        reason = f"it cannot be loaded ({error})"
    except (ValueError, LookupError, TypeError):
        reason = f"{FOLDER / ABOUT} is damaged"
    _warn_once(reason)
    return None


def _load(name: str) -> ctypes.CDLL | None:
    about, path = json.loads((FOLDER / ABOUT).read_text(encoding="utf-8")), FOLDER / f"{name}.so"
    if about["platform"] != this_platform():
        raise UnavailableError(f"it was built for {about['platform']}, and this is {this_platform()}")
    library = about["libraries"][name]
    if library["built_of"] != fingerprint(name):
        return None
    if library["sha256"] != hashlib.sha256(path.read_bytes()).hexdigest():
        # To load one that was cut could end the process, by SIGBUS.
        raise UnavailableError(f"{path} is damaged")
    return ctypes.CDLL(str(path))


def fingerprint(name: str) -> str:
    """Of the C files and the flags that make the library of an instruction set."""
    parts = [f"{path.name}\n{path.read_text(encoding='utf-8')}" for path in (*SOURCES, *HEADERS)]
    return hashlib.sha256("\n".join((*parts, *FLAGS, *SETS[name].flags)).encode()).hexdigest()


def this_platform() -> str:
    """Such as "linux x86_64"."""
    return f"{sys.platform} {platform.machine()}"


def make(folder: Path) -> str:
    """Compiles every instruction set's library into `folder`, and returns the tag of the oldest platform on which they
    run, such as "manylinux_2_17_x86_64". UnavailableError says why that cannot be done here; `folder` is then as it
    was."""
    if (this_platform(), sys.maxsize > 2**32, platform.libc_ver()[0]) != ("linux x86_64", True, "glibc"):
        raise UnavailableError(f"it is made for linux x86_64 with glibc alone, and this is {this_platform()}")
    compiler = find_compiler()
    with tempfile.TemporaryDirectory(prefix="sparseq-") as made:
        if is_clang(compiler, Path(made)):
            raise UnavailableError(f"{compiler[0]} is clang, whose OpenMP code cannot run on torch's runtime")
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            libraries = list(pool.map(lambda name: _compile(compiler, name, Path(made) / name), SETS))
        contents = {library.name: library.read_bytes() for library in libraries}
    about = {
        "platform": this_platform(),
        "libraries": {
            name: {"built_of": fingerprint(name), "sha256": hashlib.sha256(contents[f"{name}.so"]).hexdigest()}
            for name in SETS
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    major, minor = max(map(_needed_glibc, contents.values()))
    return f"manylinux_{major}_{minor}_{platform.machine()}"


def _compile(compiler: Sequence[str], name: str, folder: Path) -> Path:
    """Compiles in a folder of its own, for sets are compiled side by side."""
    folder.mkdir()
    library = folder / f"{name}.so"
    try:
        build_library(compiler, SOURCES, (*FLAGS, *SETS[name].flags), (), library)
    except (CompileError, OSError) as error:
        raise UnavailableError(f"instruction set {name}: {error}") from None
    return library


def _needed_glibc(content: bytes) -> tuple[int, int]:
    """The version of glibc that has every symbol which the library names of it."""
    named = re.findall(rb"GLIBC_(\d+)\.(\d+)", content)
    return max([OLDEST_GLIBC, *((int(major), int(minor)) for major, minor in named)])


def _warn_once(reason: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"sparseq's prebuilt native code is not used: {reason}; it is built here instead, if there is a compiler",
            stacklevel=2,
        )
