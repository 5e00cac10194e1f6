"""Where benchmarks run, and what that decides: the device, its clock, and the type of activations."""

from dataclasses import dataclass

import torch

from bench.clock import Clock, CpuClock, CudaClock
from sparseq import InputError
from sparseq_kernels.backends import why_not

KINDS = ("cpu", "cuda", "interpreter")


@dataclass(frozen=True)
class Target:
    """Where benchmarks run. kind: "cpu"; "cuda", a GPU; or "interpreter", which runs what a GPU would on the CPU, in
    Triton's interpreter and at the smallest sizes, to show that it runs: its times mean nothing.

    smallest: the smallest cases alone, one round of each.
    """

    kind: str
    smallest: bool

    @classmethod
    def of(cls, kind: str | None, smallest: bool) -> "Target":
        """`kind` None: a GPU if there is one. InputError for a kind that is not known or cannot run here."""
        kind = kind or ("cuda" if torch.cuda.is_available() else "cpu")
        if kind not in KINDS:
            raise InputError(f"device {kind!r} is not one of {', '.join(KINDS)}")
        if kind == "cuda" and not torch.cuda.is_available():
            raise InputError("device 'cuda' was asked for, and torch finds no GPU here")
        if kind == "interpreter" and (reason := why_not("triton", "cpu")) is not None:
            raise InputError(f"device 'interpreter' was asked for, and Triton cannot run so: {reason}")
        return cls(kind, smallest or kind == "interpreter")

    @property
    def gpu(self) -> bool:
        """Whether the cases, types and peers are a GPU's."""
        return self.kind != "cpu"

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if self.kind == "cuda" else "cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Of activations: what networks run in there."""
        return torch.bfloat16 if self.gpu else torch.float32

    def clock(self) -> Clock:
        return CudaClock() if self.kind == "cuda" else CpuClock(turns=2 if self.gpu else 1)
