"""Checks and times one case: a row of a result file."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch

from bench.ceilings import Ceilings
from bench.clock import Call, Clock, first_line
from bench.kernels.cases import OURS, Case
from bench.packages import CURRENT, Libraries
from bench.target import Target
from sparseq import InputError

ALONE: Libraries = {OURS: CURRENT}


@dataclass(frozen=True)
class Peers:
    """Which peers are timed. words: those that have one of these in their names; None for every peer."""

    words: tuple[str, ...] | None = None

    def __call__(self, name: str) -> bool:
        return self.words is None or any(word in name.lower() for word in self.words)

    def check(self, names: Collection[str]) -> None:
        """Raises InputError for a word that is in no name."""
        for word in self.words or ():
            if not any(word in name.lower() for name in names):
                raise InputError(
                    f"--peers has {word!r}, which is in no peer's name: {', '.join(names) or 'there is none'}"
                )


EVERY_PEER = Peers()


def measure(
    case: Case,
    target: Target,
    clock: Clock,
    ceilings: Ceilings | None,
    libraries: Libraries = ALONE,
    peers: Peers = EVERY_PEER,
) -> tuple[dict[str, Any], dict[str, Call]]:
    """(a row of the results: what `Times.as_dict` has and what else is known of the case, the calls that were timed).

    Every candidate is checked before any is timed. libraries: candidates of this tree and of others, by name. peers:
    whether a peer of that name is timed. Raises WrongResultError where a candidate is wrong.
    """
    with case.mode():
        return _measure(case, target, clock, ceilings, libraries, peers)


def _measure(
    case: Case,
    target: Target,
    clock: Clock,
    ceilings: Ceilings | None,
    libraries: Libraries,
    peers: Peers,
) -> tuple[dict[str, Any], dict[str, Call]]:
    if target.gpu:
        torch.compiler.reset()
    trial = case.make(libraries)
    absent = dict(trial.absent)
    peers.check([name for name in (*trial.candidates, *absent) if name not in libraries])
    for name, call in list(trial.candidates.items()):
        try:
            call()
            clock.synchronize()
        except Exception as error:
            if name in libraries:
                raise
            absent[name] = first_line(error)
            del trial.candidates[name]
    trial.check(trial.candidates)
    names = [name for name in trial.candidates if name in libraries or peers(name)]
    work = case.work
    sets = 1 if work is None else clock.sets(work.bytes)
    trials = [trial, *(case.make(libraries) for _ in range(sets - 1))]
    times = clock.alternate(
        {name: [other.candidates[name] for other in trials] for name in names}, 1 if target.smallest else None
    )
    # Ratios are taken to peers and to other versions, but not to other ways of our own.
    pairs = [(OURS, name) for name in names if name != OURS and (name in libraries or not name.startswith(OURS))]
    pairs += [pair for pair in trial.pairs if set(pair) <= set(names)]
    row = times.as_dict(pairs)
    if target.gpu:
        row["sets"] = sets
    if missing := {name: why for name, why in absent.items() if peers(name)}:
        row["absent"] = missing
    if work is not None:
        name = torch.cuda.get_device_name() if target.kind == "cuda" else ""
        peaks = ceilings.at(work.bytes) if ceilings else None
        row["floor"] = work.as_dict(times.comparison.time(OURS).median, name, peaks)
    if case.memory:
        peaks_of = {name: clock.peak_bytes(trial.candidates[name]) for name in names}
        row |= {} if None in peaks_of.values() else {"peak_bytes": peaks_of}
    return row, {name: trial.candidates[name] for name in names}
