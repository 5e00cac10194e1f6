"""Whether Triton can run here, and on what."""

import functools
import os

LOWEST_VERSION = (3, 6)


@functools.cache
def why_not() -> str | None:
    """Why kernels cannot run on GPU tensors here; None if they can. The first call imports triton."""
    try:
        import triton
        import triton.language
    except Exception as error:  # A broken installation fails in many ways, and this is asked for a reason, not a crash.
        return f"triton cannot be imported ({type(error).__name__}: {error})"
    found = str(triton.__version__)
    if tuple(int(part) for part in found.split(".")[:2]) < LOWEST_VERSION:
        return f"triton {found} is too old: {'.'.join(map(str, LOWEST_VERSION))} or newer is needed"
    return None


@functools.cache
def interpreted() -> bool:
    """Whether TRITON_INTERPRET asks for the interpreter, which runs kernels on CPU tensors. Read once, as Triton does
    when it is imported."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")
