"""A process that does one job after another: reads them from stdin, a line each, and answers on stdout.

It ends when stdin is closed, so that it does not outlive the process that started it, whatever ended that.
"""

import json
import os
import sys
import threading
from dataclasses import asdict
from queue import SimpleQueue

from sparseq.reading import build

from .jobs import Job, carry_out

LOST = 3
"""The exit code if stdin was closed in the middle of a job."""


def main() -> int:
    """Does jobs until there are none."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print belongs to the log
    lines: SimpleQueue[str] = SimpleQueue()
    busy = threading.Event()
    threading.Thread(target=_read, args=(lines, busy), daemon=True).start()
    while line := lines.get():
        outcome = carry_out(build(Job, json.loads(line)))
        busy.clear()
        answers.write(json.dumps(asdict(outcome)) + "\n")
        answers.flush()
    return 0


def _read(lines: "SimpleQueue[str]", busy: threading.Event) -> None:
    for line in sys.stdin:
        busy.set()  # here: stdin may be closed before the other thread has taken the line
        lines.put(line)
    if busy.is_set():
        os._exit(LOST)
    lines.put("")


if __name__ == "__main__":
    sys.exit(main())
