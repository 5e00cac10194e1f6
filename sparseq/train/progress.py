"""A run's output: a progress bar for each phase on a terminal, otherwise a line from time to time."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.text import Text

from sparseq.terminal import shown

from . import interrupt

SECONDS_BETWEEN_LINES = 15.0


class SafeConsole(Console):
    """rich's console for untrusted text: markup is not interpreted, and control characters are escaped.

    Text is escaped when rich receives it, before widths are computed, and the output of other renderables is escaped
    again. The console's own styles and cursor movements remain.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, "soft_wrap": True, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(shown(text, lines=True), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=shown(segment.text, lines=True))


class Phase:
    """A phase with a number of steps, shown until its `with` block ends."""

    def __init__(self, reporter: "Reporter", name: str, total: int, done: int) -> None:
        self.reporter, self.name, self.total, self.done = reporter, name, total, done
        self.started = self.shown = time.monotonic()
        self.note = ""

    def update(self, done: int | None = None, note: str | None = None) -> None:
        """Sets the number of completed steps (one more by default), and the note next to it.

        Raises KeyboardInterrupt if an earlier one was dropped (see `interrupt`).
        """
        interrupt.check()
        self.done = self.done + 1 if done is None else done
        self.note = self.note if note is None else note
        bar = self.reporter.bar
        if bar is not None:
            bar.update(bar.task_ids[-1], completed=self.done, total=self.total or None, note=self.note)
        elif time.monotonic() - self.shown >= SECONDS_BETWEEN_LINES:
            self.shown = time.monotonic()
            self.reporter.say(f"{self.name}: {self.done}/{self.total}  {self.note}".rstrip())

    def finish(self) -> None:
        """Prints a final line: the phase, its last note, and the time it took in seconds."""
        seconds = time.monotonic() - self.started
        self.reporter.say(f"{self.name}: done in {seconds:.1f} s  {self.note}".rstrip())


class Reporter:
    """Writes progress to stderr; stdout is for results. A silent reporter writes nothing."""

    def __init__(self, silent: bool = False) -> None:
        self.errors = SafeConsole(stderr=True, quiet=silent)
        self.silent = silent
        self.bar: Progress | None = None

    def say(self, message: str) -> None:
        """Prints one line of progress."""
        self.errors.print(message)

    @contextmanager
    def phase(self, name: str, total: int = 0, done: int = 0) -> Iterator[Phase]:
        """Shows the phase called `name` inside the block, and prints a final line.

        total: its number of steps; 0 if there are none to show, or if they become known later.
        """
        phase = Phase(self, name, total, done)
        if self.errors.is_terminal and not self.silent:
            columns = (
                SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
                TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False),
            )  # fmt: skip
            with Progress(*columns, console=self.errors, transient=True) as bar:
                bar.add_task(name, total=total or None, completed=done, note="")
                self.bar = bar
                try:
                    yield phase
                finally:
                    self.bar = None
        else:
            self.say(f"{name} ...")
            yield phase
        phase.finish()
