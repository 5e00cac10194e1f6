"""The C files of this package, and how the machine's compiler makes a shared library of them.

Nothing here needs torch: setup.py builds wheels with it, where there is none.
"""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

SOURCES = tuple(sorted(Path(__file__).parent.glob("*.c")))
HEADERS = tuple(sorted(Path(__file__).parent.glob("*.h")))
FLAGS = ("-O3", "-std=c11", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off")
# Seconds that a compiler has: it takes one or two.
TIMEOUT = 120


class UnavailableError(Exception):
    """Why there is no native code on this machine."""


class CompileError(UnavailableError):
    """What the compiler says of code that it cannot build. With other flags it may be able to."""


def find_compiler() -> list[str]:
    """The C compiler, $CC or the system's, with its arguments. UnavailableError if there is none."""
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        try:
            words = shlex.split(name or "")
        except ValueError:  # a quote that does not end
            continue
        if words and (found := shutil.which(words[0])):
            return [found, *words[1:]]
    raise UnavailableError("no C compiler was found (cc, gcc, clang or $CC)")


def is_clang(compiler: Sequence[str], folder: Path) -> bool:
    """Whether it is clang, whatever its name is. Its OpenMP code needs clang's own runtime. `folder` gets files.

    UnavailableError if it does not end.
    """
    macros = folder / "macros"
    try:
        run(folder, [*compiler, "-dM", "-E", "-x", "c", os.devnull, "-o", str(macros)])
        return "__clang__" in macros.read_text(encoding="utf-8", errors="replace")
    except (CompileError, OSError):  # What is wrong with it is said when it compiles.
        return "clang" in Path(compiler[0]).name


def build_library(
    compiler: Sequence[str], sources: Sequence[Path], flags: Sequence[str], openmp: Sequence[str], library: Path
) -> None:
    """Compiles and links. `openmp` links the OpenMP runtime; without it, the runtime must be there at load. The
    library's folder gets other files too.

    Raises CompileError for what the compiler refuses, UnavailableError if it does not end, OSError if it cannot run.
    """
    folder = library.parent
    objects = [folder / f"{source.stem}.o" for source in sources]
    run(
        folder,
        *(
            [*compiler, *flags, "-fopenmp", "-c", str(source), "-o", str(built)]
            for source, built in zip(sources, objects, strict=True)
        ),
    )
    run(folder, [*compiler, "-shared", *map(str, objects), *openmp, "-lm", "-o", str(library)])


def run(folder: Path, *commands: Sequence[str]) -> None:
    """Runs compilers side by side, whose messages go into `folder`. CompileError quotes the first one that fails;
    UnavailableError says that one did not end in time."""
    logs = [folder / f"log{number}" for number in range(len(commands))]
    deadline = time.monotonic() + TIMEOUT
    with contextlib.ExitStack() as stack:
        processes: list[subprocess.Popen[bytes]] = []
        try:
            for command, log in zip(commands, logs, strict=True):
                said = stack.enter_context(log.open("wb"))
                # In a session of its own, so that what it started ends with it; its messages in ASCII, if it follows
                # the locale.
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    env=os.environ | {"LC_ALL": "C"},
                    start_new_session=True,
                )
                processes.append(stack.enter_context(process))
            for process in processes:
                process.wait(max(0.0, deadline - time.monotonic()))
        except BaseException as error:
            for process in processes:
                if process.returncode is None:  # Another program may have the number of one that ended.
                    with contextlib.suppress(OSError):
                        os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise UnavailableError(f"{commands[0][0]} did not end within {TIMEOUT} seconds") from None
            raise
    for process, log in zip(processes, logs, strict=True):
        if process.returncode:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise CompileError(f"{commands[0][0]} could not build it: {_fault(lines)}")


def _fault(lines: Sequence[str]) -> str:
    """The line of a compiler's messages that says what is wrong."""
    return next((line for line in lines if "error" in line.lower()), lines[0] if lines else "no message")
