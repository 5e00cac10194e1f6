"""A folder for native code that is the test's own."""

import os
import shutil
import warnings

import pytest

from sparseq_kernels import cache, instruction_sets
from sparseq_kernels.cpu import native

OTHER = 12345
root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files to others")
compiles = pytest.mark.skipif(native.why_not() is not None, reason="there is no native code here")

# Compiles a file once, and then gives copies of what came of it. The last argument is where the result goes.
ONCE = """
for written; do :; done
kept="{folder}/$(basename "$written")"
if [ ! -e "$kept" ]; then
    {compiler} "$@" || exit
    cp "$written" "$kept.$$" && mv "$kept.$$" "$kept"
fi
cp "$kept" "$written"
"""


def forget():
    for function in (cache.code_dir, cache.fresh_dir, native.library_of, native.loaded, native.failure):
        function.cache_clear()
    instruction_sets.forget()


def make():
    """Builds the native code, or loads what is kept of it."""
    assert native.why_not() is None


def system_compiler():
    """A C compiler of this machine, as a command."""
    return os.environ.get("CC") or next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))))


def quietly(run):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return run()


def compiler(tmp_path, script):
    path = tmp_path / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path
