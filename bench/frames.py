"""How many Python functions a call enters: what it costs the host before native code runs."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NamedTuple

from bench.packages import Packages


class Frames(NamedTuple):
    """own: of the library's functions. all: of these and of other packages, torch's too; the benchmark's not."""

    own: int
    all: int


def frames(call: Callable[[], Any], library: Packages) -> Frames:
    """The Python frames of one call, counted by a profile hook."""
    entered: list[str] = []

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            entered.append(frame.f_globals.get("__name__", ""))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    counted = [name for name in entered if name.partition(".")[0] != "bench"]
    return Frames(sum(map(library.owns, counted)), len(counted))
