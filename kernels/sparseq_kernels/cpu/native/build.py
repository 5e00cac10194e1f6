"""Builds C files into a shared library with the machine's compiler, and keeps it in the cache folder."""

import contextlib
import ctypes
import hashlib
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from ...cache import code_dir, fresh_dir, only_ours
from ...locks import lock, unlock
from . import compiler as compiling
from . import openmp
from .compiler import FLAGS, UnavailableError, build_library, find_compiler, is_clang


def load(sources: Sequence[Path], flags: Sequence[str] = (), headers: Sequence[Path] = ()) -> ctypes.CDLL:
    """The library of `sources`, which include `headers`, compiled with `flags` beside FLAGS.

    It comes from the cache if it was built there before, perhaps by another process while this one waited for it.
    UnavailableError says why there is none, and is a CompileError if that is because of these flags or sources.

    A built library is named after all that decides what is in it, and after the sha256 of its own bytes. One whose
    bytes are others, because it was cut or changed, is never loaded, but built anew.
    """
    compiler = find_compiler()
    flags = (*FLAGS, *flags)
    fingerprint = _fingerprint(compiler, (*sources, *headers), flags)
    try:
        folder = code_dir("native")
    except OSError as error:  # not even a temporary folder can be made
        raise UnavailableError(f"there is no place to build it: {error}") from None
    if (kept := _load_kept(folder, fingerprint)) is not None:
        return kept
    with _one_at_a_time(folder):
        if (kept := _load_kept(folder, fingerprint)) is not None:
            return kept
        path = _build(compiler, sources, flags, folder, fingerprint)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise UnavailableError(f"the built library {path} cannot be loaded ({error})") from None


def _load_kept(folder: Path, fingerprint: str) -> ctypes.CDLL | None:
    """The library that the cache has; what cannot be loaded of it is removed."""
    for path in _kept(folder, fingerprint):
        if _intact(path):
            with contextlib.suppress(OSError):  # It was linked for another system: build it for this one.
                return ctypes.CDLL(str(path))
        with contextlib.suppress(OSError):
            path.unlink()
    return None


def _kept(folder: Path, fingerprint: str) -> list[Path]:
    try:
        return sorted(folder.glob(f"{fingerprint}-*.so"))
    except OSError:
        return []


def _intact(path: Path) -> bool:
    """Whether the file is this user's alone, and its bytes are those of its name."""
    try:
        return only_ours(path) and path.stem.rpartition("-")[2] == _sha256(path.read_bytes())
    except OSError:
        return False


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Waits while another process or thread builds into the folder, and removes what one that was killed has left.

    Where there are no locks, or the other takes longer than a compiler may, both build: that costs time alone, for a
    file gets its name when it is complete.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        yield
        return
    try:
        deadline = time.monotonic() + compiling.TIMEOUT
        while time.monotonic() < deadline:
            try:
                lock(descriptor)
            except BlockingIOError:
                time.sleep(0.05)
                continue
            except OSError:
                break
            for unfinished in folder.glob(".*.part"):
                with contextlib.suppress(OSError):
                    unfinished.unlink()
            break
        yield
    finally:
        # A child that another thread forked meanwhile has the descriptor too, and would hold the lock on.
        with contextlib.suppress(OSError):
            unlock(descriptor)
        os.close(descriptor)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _openmp() -> list[str]:
    """Links the OpenMP runtime that torch has loaded: with one of its own, the two pools of threads would fight."""
    found = openmp.runtime()
    return ["-fopenmp"] if found is None else [str(found)]


def _fingerprint(compiler: Sequence[str], sources: Sequence[Path], flags: Sequence[str]) -> str:
    """Of all that decides what is in the library: sources, compiler, flags, processor, torch."""
    processor = platform.processor() + platform.machine()
    if (information := Path("/proc/cpuinfo")).exists():
        lines = information.read_text(encoding="utf-8", errors="replace").splitlines()
        processor += "".join(sorted({line for line in lines if line.startswith(("flags", "model name", "Features"))}))
    texts = [source.read_text(encoding="utf-8") for source in sources]
    parts = (*texts, *compiler, *flags, processor, torch.__version__, *_openmp())
    return _sha256("\n".join(parts).encode(errors="surrogateescape"))[:24]


def _build(
    compiler: Sequence[str], sources: Sequence[Path], flags: Sequence[str], folder: Path, fingerprint: str
) -> Path:
    """Compiles in a temporary folder, and moves what came of it into `folder`; returns where it lies then."""
    try:
        with tempfile.TemporaryDirectory(prefix="sparseq-") as made:
            library = Path(made) / "native.so"
            # Clang's code needs clang's own runtime.
            linked = ["-fopenmp"] if is_clang(compiler, Path(made)) else _openmp()
            build_library(compiler, sources, flags, linked, library)
            content = library.read_bytes()
    except OSError as error:
        raise UnavailableError(f"it could not be built: {error}") from None
    name = f"{fingerprint}-{_sha256(content)}.so"
    try:
        return _keep(content, folder / name)
    except OSError as error:
        warnings.warn(
            f"sparseq's native code is built anew in every process, for it cannot be kept: {error}", stacklevel=2
        )
    try:
        return _keep(content, fresh_dir() / name)
    except OSError as error:
        raise UnavailableError(f"there is no place to build it: {error}") from None


def _keep(content: bytes, path: Path) -> Path:
    """Writes the file beside its place, to the disk, and renames it: nobody ever sees half of it."""
    descriptor, unfinished = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.chmod(unfinished, 0o700)
        os.replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return path
