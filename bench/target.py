"""Where benchmarks run, and what that decides: the device, its clock, and the type of activations."""

import time
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

    smallest: the smallest cases alone, one round of each. activations: their dtype; None for what networks run in
    there.
    """

    kind: str
    smallest: bool
    activations: torch.dtype | None = None

    @classmethod
    def of(cls, kind: str | None, smallest: bool, activations: torch.dtype | None = None) -> "Target":
        """`kind` None: a GPU if there is one. InputError for a kind that is not known or cannot run here."""
        kind = kind or ("cuda" if torch.cuda.is_available() else "cpu")
        if kind not in KINDS:
            raise InputError(f"device {kind!r} is not one of {', '.join(KINDS)}")
        if kind == "cuda" and not torch.cuda.is_available():
            raise InputError("device 'cuda' was asked for, and torch finds no GPU here")
        if kind == "interpreter" and (reason := why_not("triton", "cpu")) is not None:
            raise InputError(f"device 'interpreter' was asked for, and Triton cannot run so: {reason}")
        return cls(kind, smallest or kind == "interpreter", activations)

    @property
    def gpu(self) -> bool:
        """Whether the cases, types and peers are a GPU's."""
        return self.kind != "cpu"

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if self.kind == "cuda" else "cpu")

    @property
    def dtype(self) -> torch.dtype:
        """Of activations: bf16 on a GPU and fp32 on a CPU unless another was asked for."""
        return self.activations or (torch.bfloat16 if self.gpu else torch.float32)

    def clock(self) -> Clock:
        if self.kind == "cuda":
            return CudaClock()
        # Of one thread its own time is taken, which leaves out what other processes take.
        alone = not self.gpu and torch.get_num_threads() == 1
        return CpuClock(turns=2 if self.gpu else 1, timer=time.thread_time if alone else time.perf_counter)
