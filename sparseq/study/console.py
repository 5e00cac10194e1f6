"""How a study's progress looks: a line for each cell that ends, and on a terminal what runs now, with the time left."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sparseq.terminal import counted
from sparseq.train import RunResult
from sparseq.train.progress import SafeConsole

from .cells import Cell
from .cost import Cost
from .folder import StudyFolder
from .jobs import progress_of

_BETWEEN_LINES = 60.0
"""Seconds between two lines about running cells where the output is not a terminal."""


class StudyConsole:
    """Shows a study on stderr. It is the `Watcher` of a `Runner`."""

    def __init__(
        self, cells: Sequence[Cell], costs: Mapping[str, Cost], folder: StudyFolder, jobs: int, *, silent: bool = False
    ) -> None:
        """cells: those that are to be run. jobs: how many run beside each other, for the time left."""
        self.console = SafeConsole(stderr=True, quiet=silent)
        self.folder, self.jobs = folder, jobs
        self.total, self.ended_cells, self.failures = len(cells), 0, 0
        self._expected = {cell.name: costs[cell.name].seconds if cell.name in costs else None for cell in cells}
        self._left = set(self._expected)
        self._running: dict[str, tuple[Path, float]] = {}
        self._timing: tuple[Path, int] | None = None
        self._taken: list[tuple[float, float]] = []  # (seconds, expected seconds) of ended cells
        self._live: Live | None = None
        self._said = time.monotonic()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Shows what runs inside the block, on a terminal."""
        if not self.console.is_terminal or self.console.quiet:
            yield
            return
        with Live(console=self.console, refresh_per_second=2, transient=True, get_renderable=self._now) as self._live:
            try:
                yield
            finally:
                self._live = None

    def say(self, message: str) -> None:
        """Prints one line."""
        self.console.print(message)

    def started(self, cell: Cell, progress: Path) -> None:
        self._running[cell.name] = progress, time.monotonic()

    def ended(self, cell: Cell, reason: str | None) -> None:
        self._left.discard(cell.name)
        _, began = self._running.pop(cell.name, (None, time.monotonic()))
        self.ended_cells += 1
        head = f"[{self.ended_cells}/{self.total}] {cell.name}: "
        if reason is not None:
            self.failures += 1
            self.say(f"{head}FAILED: {reason}")
            return
        seconds, expected = time.monotonic() - began, self._expected.get(cell.name)
        if expected:
            self._taken.append((seconds, expected))
        result = RunResult.from_folder(self.folder.cell(cell.name))
        held = f", held out {100 * result.held_out_score:.1f}" if result.held_out_score is not None else ""
        told = f"score {100 * result.score:.1f}{held}, {result.stored_bytes / 1e6:.2f} MB, {span(seconds)}"
        self.say(f"{head}{told}{self._time_left()}")

    def lost(self, cell: Cell, reason: str, again: bool) -> None:
        self._running.pop(cell.name, None)
        self.say(f"{cell.name}: {reason}" + (" (it is begun again)" if again else ""))

    def timing(self, cells: Sequence[str], progress: Path | None) -> None:
        self._timing = None if progress is None else (progress, len(cells))
        if progress is not None and self._live is None:
            self.say(f"timing {counted(len(cells), 'finished cell')} beside their teacher")

    def untimed(self, cells: Sequence[str], reason: str) -> None:
        self.say(f"could not time {', '.join(cells)}: {reason}")

    def look(self) -> None:
        """Refreshes what is shown; without a terminal, says from time to time what runs."""
        if self._live is not None or time.monotonic() - self._said < _BETWEEN_LINES:
            return
        self._said = time.monotonic()
        for name, (path, _) in self._running.items():
            found = progress_of(path)
            if found is not None:
                self.say(f"  {name}: {found.phase} {found.done}/{found.total} {found.note}".rstrip())

    def _now(self) -> Group:
        table = Table.grid(padding=(0, 1))
        done = f"{self.ended_cells}/{self.total} cells" + (f", {self.failures} failed" if self.failures else "")
        table.add_row(Text("study", style="bold"), _bar(self.ended_cells, self.total), Text(done + self._time_left()))
        for name, (path, began) in self._running.items():
            found = progress_of(path)
            note = f"{found.phase}  {found.note}" if found else "starting"
            bar = _bar(found.done, found.total) if found else _bar(0, 0)
            table.add_row(Text(name), bar, Text(f"{note}  {span(time.monotonic() - began)}"))
        if self._timing is not None:
            table.add_row(Text("timing"), _bar(0, 0), Text(f"{self._timing[1]} finished cells beside their teacher"))
        return Group(table)

    def _time_left(self) -> str:
        """The time that the cells left are expected to take, corrected by what the ended ones took."""
        if not self._left:
            return ""
        known = [seconds for name in self._left if (seconds := self._expected[name]) is not None]
        if not known:
            return ""
        took, expected = (sum(part) for part in zip(*self._taken, strict=True)) if self._taken else (1.0, 1.0)
        running = sum(time.monotonic() - began for _, began in self._running.values())
        left = max(0.0, sum(known) * took / expected - running) / self.jobs
        return f", about {span(left)} left"


def _bar(done: int, total: int) -> ProgressBar:
    return ProgressBar(total=total or None, completed=done, width=24, pulse=not total)


def span(seconds: float) -> str:
    """A time in words: "40 s", "12 min", "3.4 h", "2.1 days"."""
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}" if unit != "h" else f"{seconds / size:.1f} h"
    return f"{seconds / 86400:.1f} days"
