"""Code run as in a new process, without the seconds that it takes to import torch.

A server imports torch, and nothing of sparseq unless it is told to, and forks for each piece of code. What is read once
when torch is imported, such as OMP_NUM_THREADS, is the server's.
"""

from __future__ import annotations

import atexit
import importlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SERVER = (__file__,)
TRAINING = ("torch", "sparseq.train.run", "sparseq.train.predicting", "sparseq.cli")
"""What a server imports for code that trains."""


class FreshProcesses:
    """Runs code, one piece after the other. folder: of outputs, meanwhile. imports: what the server imports."""

    def __init__(self, folder: Path, imports: Sequence[str] = ("torch",)) -> None:
        self._outputs = folder / "stdout", folder / "stderr"
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._server = subprocess.Popen(
            [sys.executable, *SERVER, *imports],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(self, code: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
        """Runs `code` in this process's folder, with these changes to its environment, None for a variable that is not
        set there. Its standard input is empty. Every warning is shown."""
        changed = {name: value for name, value in (os.environ | environment).items() if value is not None}
        outputs = [str(path) for path in self._outputs]
        asked = {"code": code, "environment": changed, "folder": os.getcwd(), "outputs": outputs}
        for path in self._outputs:
            path.unlink(missing_ok=True)
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        returncode = int(self._server.stdout.readline())
        stdout, stderr = (path.read_text(errors="replace") for path in self._outputs)
        return subprocess.CompletedProcess(code, returncode, stdout, stderr)

    def close(self) -> None:
        """Ends the server."""
        self._server.communicate()


def serve() -> None:
    """Answers each line on stdin, until it ends, by the exit code of what it asks for."""
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if not child:
            become(asked)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def become(asked: dict[str, Any]) -> None:
    """Runs the code that is asked for, and ends the process as Python would."""
    for descriptor, path in enumerate([os.devnull, *asked["outputs"]]):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC if descriptor else os.O_RDONLY, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    tempfile.tempdir = None  # It was asked for when torch was imported, of another environment.
    warnings.simplefilter("always")
    status = 0
    try:
        exec(compile(asked["code"], "<code>", "exec"), {"__name__": "__main__"})
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if ended.code is not None and not isinstance(ended.code, int):
            print(ended.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        status = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError):
            pass  # None, or closed.
        except OSError:
            status = 120  # As of a Python whose streams cannot be flushed.
    os._exit(status)


if __name__ == "__main__":
    for module in sys.argv[1:]:
        importlib.import_module(module)
    serve()
