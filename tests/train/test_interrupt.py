"""A SIGINT is never lost, even where Python drops the exception."""

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from sparseq.train import Recipe, callbacks, compress
from sparseq.train.interrupt import check, interruptible


class Dropping:
    """Interrupts the process while it is finalized, where Python prints the exception and continues."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):  # the signal is handled between two instructions of these
            pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_run_ends_though_the_exception_was_dropped(
    make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = callbacks.PruningCallback.on_step_end
    steps = []

    def drop(self: Any, *arguments: Any, **options: Any) -> None:
        step(self, *arguments, **options)
        steps.append(1)
        if len(steps) == 3:
            Dropping()

    monkeypatch.setattr(callbacks.PruningCallback, "on_step_end", drop)
    with pytest.raises(KeyboardInterrupt):
        compress(make_recipe(save_steps=2))
    assert len(steps) == 3
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    monkeypatch.undo()
    assert compress(make_recipe(save_steps=2)).steps == 18


def test_a_handler_of_the_programs_own_stays() -> None:
    def own(number: int, frame: object) -> None: ...

    before = signal.signal(signal.SIGINT, own)
    try:
        with interruptible():
            assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_nothing_is_installed() -> None:
    found = []

    def look() -> None:
        with interruptible():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]


def test_an_interruption_is_forgotten_with_its_block() -> None:
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass
    check()
