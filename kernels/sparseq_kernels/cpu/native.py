"""Builds `native.c` with the machine's C compiler when it is first needed, keeps it in the cache folder, and calls
it through ctypes."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from ..cache import cache_dir
from ..numerics import qmax

SOURCE = Path(__file__).with_name("native.c")
FLAGS = ("-O3", "-march=native", "-std=c11", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off")
_P, _I64, _I32 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
_SIGNATURES = {
    "sparseq_quantize_rows": (_P, _P, _I64, _I64, _I32, _P, _P),
    "sparseq_scale_sums": (_P, _I64, _I64, _P, _I64, _P, _P, _P),
    "sparseq_dequantize_rows": (_P, _I64, _I64, _P, _P),
    "sparseq_mask": (_P, _P, _I64, _P),
}


class UnavailableError(Exception):
    """Why there is no native code on this machine."""


@functools.cache
def why_not() -> str | None:
    """None if the native code runs here, otherwise why it does not."""
    try:
        _library()
    except UnavailableError as error:
        return str(error)
    return None


def quantize_rows(x: Tensor, bits: int, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """fp32 [M, K], up to 8 bits -> (int8 [M, K], fp32 [M]); x counts as zero where `mask` (bool [M, K]) is False."""
    x, mask = x.contiguous(), None if mask is None else mask.contiguous()
    q = torch.empty(x.shape, dtype=torch.int8)
    scale = torch.empty(x.shape[0])
    kept = None if mask is None else mask.data_ptr()
    _library().sparseq_quantize_rows(x.data_ptr(), kept, *x.shape, qmax(bits), q.data_ptr(), scale.data_ptr())
    return q, scale


def scale_sums(acc: Tensor, input_scale: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor:
    """int32 [M, N], fp32 [M or 1], fp32 [N], fp32 [N] or None -> fp32 [M, N]."""
    y = torch.empty(acc.shape)
    # Held by name while their addresses are in use.
    acc, rows, columns = acc.contiguous(), input_scale.contiguous(), weight_scale.contiguous()
    added = None if bias is None else bias.contiguous()
    _library().sparseq_scale_sums(
        acc.data_ptr(),
        *acc.shape,
        rows.data_ptr(),
        0 if rows.numel() == 1 else 1,
        columns.data_ptr(),
        None if added is None else added.data_ptr(),
        y.data_ptr(),
    )
    return y


def dequantize_rows(q: Tensor, scale: Tensor) -> Tensor:
    """int8 [M, K], fp32 [M] -> fp32 [M, K]."""
    y = torch.empty(q.shape)
    q, scale = q.contiguous(), scale.contiguous()
    _library().sparseq_dequantize_rows(q.data_ptr(), *q.shape, scale.data_ptr(), y.data_ptr())
    return y


def masked(x: Tensor, mask: Tensor) -> Tensor:
    """fp32 and bool of one shape -> x with zeros where the mask is False."""
    x, mask = x.contiguous(), mask.contiguous()
    y = torch.empty(x.shape)
    _library().sparseq_mask(x.data_ptr(), mask.data_ptr(), x.numel(), y.data_ptr())
    return y


def mask_(x: Tensor, mask: Tensor) -> Tensor:
    """`masked` in place, for a contiguous x."""
    mask = mask.contiguous()
    _library().sparseq_mask(x.data_ptr(), mask.data_ptr(), x.numel(), x.data_ptr())
    return x


@functools.cache
def _library() -> ctypes.CDLL:
    compiler = _compiler()
    path = cache_dir() / "native" / f"{_fingerprint(compiler)}.so"
    if not path.exists():
        _build(compiler, path)
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise UnavailableError(
            f"the built library {path} cannot be loaded ({error}); delete it to build it anew"
        ) from None
    for name, signature in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = signature, None
    return library


def _compiler() -> str:
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and (found := shutil.which(name)):
            return found
    raise UnavailableError("no C compiler was found (cc, gcc, clang or $CC)")


def _openmp() -> list[str]:
    """Links the OpenMP runtime that torch has loaded: with one of its own, the two pools of threads would fight."""
    libraries = Path(torch.__file__).parent / "lib"
    bundled = [*libraries.glob("libgomp*.so*"), *(libraries.parent.parent / "torch.libs").glob("libgomp*.so*")]
    return [str(bundled[0])] if bundled else ["-fopenmp"]


def _fingerprint(compiler: str) -> str:
    """Names the built library after all that decides what is in it: source, compiler, flags, processor, torch."""
    processor = platform.processor() + platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        processor += "".join(sorted({line for line in lines if line.startswith(("flags", "model name", "Features"))}))
    parts = (SOURCE.read_text(encoding="utf-8"), compiler, *FLAGS, processor, torch.__version__, *_openmp())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _build(compiler: str, path: Path) -> None:
    """Compiles into a file beside `path` and renames it, so that a reader never sees half of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            built, made = Path(folder) / "native.o", Path(folder) / "native.so"
            for command in (
                [compiler, *FLAGS, "-fopenmp", "-c", str(SOURCE), "-o", str(built)],
                [compiler, "-shared", str(built), *_openmp(), "-lm", "-o", str(made)],
            ):
                done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
                if done.returncode:
                    first = (done.stderr.strip().splitlines() or ["no message"])[0]
                    raise UnavailableError(f"{compiler} could not build it: {first}")
            os.replace(made, path)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"it could not be built in {path.parent}: {error}") from None
