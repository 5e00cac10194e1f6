"""What a run enters of the library, compared with the tables of the page on the path of a weight."""

import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from pages import ROOT, places, source

PAGE = (ROOT / "docs" / "explanation" / "path-of-a-weight.md").read_text(encoding="utf-8")
Call = tuple[str, str]


def table(name: str, without: Collection[str] = ()) -> list[Call]:
    """(file, function) of every step of a table, in order, but for kernels and native code.

    without: how those steps begin that are not taken.
    """
    found = re.search(rf"<!-- path: {name} -->\n\n(.*?)\n\n", PAGE, re.DOTALL)
    assert found is not None
    rows = [row for row in found[1].splitlines() if not row.removeprefix("| ").startswith(tuple(without))]
    calls = [call for call in places("\n".join(rows)) if call[0].endswith(".py") and not call[1].endswith("_kernel")]
    assert len(calls) >= 4
    return calls


@contextmanager
def entered() -> Iterator[list[Call]]:
    """The functions of the library that this thread enters meanwhile, in order.

    A backward of GPU tensors runs in this thread too, and not in one of autograd's own, which Python cannot observe.
    """
    calls: list[Call] = []

    def watch(frame: FrameType, event: str, arg: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(ROOT)):
            calls.append((frame.f_code.co_filename, frame.f_code.co_name))

    with torch.autograd.set_multithreading_enabled(False):
        sys.setprofile(watch)
        try:
            yield calls
        finally:
            sys.setprofile(None)


def missing(expected: list[Call], calls: list[Call]) -> Call | None:
    """The first of the expected calls that does not come after those before it."""
    rest = iter(calls)
    for file, function in expected:
        wanted = (str(source(file)), function)
        if not any(call == wanted for call in rest):
            return file, function
    return None
