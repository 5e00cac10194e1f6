"""Ctrl-C that is never lost.

Python raises KeyboardInterrupt at the current point of execution. Inside a finalizer or a weak reference's callback the
exception is printed and dropped, and the run would continue.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_asked = threading.Event()


@contextmanager
def interruptible() -> Iterator[None]:
    """Remembers a SIGINT that arrives inside the block; `check` raises it again if it was dropped.

    Does nothing outside the main thread, or if the program has its own handler.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    _asked.clear()
    signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _asked.clear()


def check() -> None:
    """Raises KeyboardInterrupt if one arrived inside `interruptible` and the block still runs."""
    if _asked.is_set():
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    _asked.set()
    signal.default_int_handler(number, frame)
