"""Builds C files into a shared library with the machine's compiler, and keeps it in the cache folder."""

import contextlib
import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from ...cache import code_dir, fresh_dir, only_ours

FLAGS = ("-O3", "-std=c11", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off")
# Seconds that a compiler has: it takes one or two.
TIMEOUT = 120


class UnavailableError(Exception):
    """Why there is no native code on this machine."""


def load(sources: Sequence[Path], flags: Sequence[str] = (), headers: Sequence[Path] = ()) -> ctypes.CDLL:
    """The library of `sources`, which include `headers`, compiled with `flags` beside FLAGS.

    It comes from the cache if it was built there before. UnavailableError says why there is none.

    A built library is named after all that decides what is in it, and after the sha256 of its own bytes. One whose
    bytes are others, because it was cut or changed, is never loaded, but built anew.
    """
    compiler = _compiler()
    flags = (*FLAGS, *flags)
    fingerprint = _fingerprint(compiler, (*sources, *headers), flags)
    try:
        folder = code_dir("native")
    except OSError as error:  # not even a temporary folder can be made
        raise UnavailableError(f"there is no place to build it: {error}") from None
    for path in _kept(folder, fingerprint):
        if _intact(path):
            with contextlib.suppress(OSError):  # It was linked for another system: build it for this one.
                return ctypes.CDLL(str(path))
        with contextlib.suppress(OSError):
            path.unlink()
    path = _build(compiler, sources, flags, folder, fingerprint)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise UnavailableError(f"the built library {path} cannot be loaded ({error})") from None


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


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _compiler() -> list[str]:
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        try:
            words = shlex.split(name or "")
        except ValueError:  # a quote that does not end
            continue
        if words and (found := shutil.which(words[0])):
            return [found, *words[1:]]
    raise UnavailableError("no C compiler was found (cc, gcc, clang or $CC)")


def _openmp(compiler: Sequence[str]) -> list[str]:
    """Links the OpenMP runtime that torch has loaded: with one of its own, the two pools of threads would fight.

    Clang's code needs clang's own."""
    if "clang" in Path(compiler[0]).name:
        return ["-fopenmp"]
    libraries = Path(torch.__file__).parent / "lib"
    bundled = [*libraries.glob("libgomp*.so*"), *(libraries.parent.parent / "torch.libs").glob("libgomp*.so*")]
    return [str(bundled[0])] if bundled else ["-fopenmp"]


def _fingerprint(compiler: Sequence[str], sources: Sequence[Path], flags: Sequence[str]) -> str:
    """Of all that decides what is in the library: sources, compiler, flags, processor, torch."""
    processor = platform.processor() + platform.machine()
    if (information := Path("/proc/cpuinfo")).exists():
        lines = information.read_text(encoding="utf-8", errors="replace").splitlines()
        processor += "".join(sorted({line for line in lines if line.startswith(("flags", "model name", "Features"))}))
    texts = [source.read_text(encoding="utf-8") for source in sources]
    parts = (*texts, *compiler, *flags, processor, torch.__version__, *_openmp(compiler))
    return _sha256("\n".join(parts).encode(errors="surrogateescape"))[:24]


def _build(
    compiler: Sequence[str], sources: Sequence[Path], flags: Sequence[str], folder: Path, fingerprint: str
) -> Path:
    """Compiles in a temporary folder, and moves what came of it into `folder`; returns where it lies then."""
    try:
        with tempfile.TemporaryDirectory(prefix="sparseq-") as made:
            library = Path(made) / "native.so"
            objects = [Path(made) / f"{source.stem}.o" for source in sources]
            for source, built in zip(sources, objects, strict=True):
                _run([*compiler, *flags, "-fopenmp", "-c", str(source), "-o", str(built)], Path(made))
            _run([*compiler, "-shared", *map(str, objects), *_openmp(compiler), "-lm", "-o", str(library)], Path(made))
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


def _run(command: Sequence[str], folder: Path) -> None:
    """Runs a compiler. UnavailableError quotes it if it fails, or says that it did not end in time."""
    log = folder / "log"
    # In a session of its own: what it started ends with it. Its messages in ASCII, if it follows the locale.
    with (
        log.open("wb") as said,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            env=os.environ | {"LC_ALL": "C"},
            start_new_session=True,
        ) as process,
    ):
        try:
            process.wait(TIMEOUT)
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise UnavailableError(f"{command[0]} did not end within {TIMEOUT} seconds") from None
            raise
    if process.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise UnavailableError(f"{command[0]} could not build it: {_fault(lines)}")


def _fault(lines: Sequence[str]) -> str:
    """The line of a compiler's messages that says what is wrong."""
    return next((line for line in lines if "error" in line.lower()), lines[0] if lines else "no message")
