"""One layer in inference on the CPU: packed to int8, and in fp32, at the layer sizes of the six BERTs.

"sparseq" is the packed layer with native code; "without a compiler" the same on torch's operators (the backend "cpu");
"QAT" the layer before packing, which quantizes its weight in every call. All are called as modules, on one thread, and
the time is the thread's own: what other processes take is not in it.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.check import require_close
from bench.common import alternate, arguments, finish
from bench.kernels.cases import LAYERS, OURS, layer_case
from sparseq.nn import QuantSparseLinear, pack
from sparseq_kernels import use_backend
from sparseq_kernels.cpu.int8_matmul import way, why_not_int_mm
from sparseq_kernels.cpu.native import int8_instructions

ROWS = (1, 8, 16, 128, 1024)
FP32, PLAIN, QAT = "fp32 nn.Linear", "sparseq without a compiler", "sparseq, QAT"
# Of normally distributed weights and inputs, relative to the largest result.
TOLERANCE = 3e-2
# Seconds; longer than elsewhere, for other processes empty the caches between.
SHORTEST_SAMPLE = 1e-2


def on(backend: str, layer: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    def run() -> Tensor:
        with use_backend(backend):
            result: Tensor = layer(x)
        return result

    return run


def measure(outputs: int, inputs: int, M: int, rounds: int) -> dict[str, Any]:
    torch.manual_seed(0)
    x, dense = torch.randn(M, inputs), nn.Linear(inputs, outputs)
    trained = QuantSparseLinear.from_linear(dense).eval()
    packed = pack(trained)
    candidates: dict[str, Callable[[], Tensor]] = {
        OURS: lambda: packed(x),
        FP32: lambda: dense(x),
        PLAIN: on("cpu", packed, x),
        QAT: lambda: trained(x),
    }
    with torch.inference_mode():
        expected = dense(x)
        for name, run in candidates.items():
            require_close(name, run(), expected, TOLERANCE)
        times = alternate(candidates, rounds, shortest=SHORTEST_SAMPLE, clock=time.thread_time)
    pairs = [(OURS, FP32), (PLAIN, FP32), (QAT, FP32)]
    ratios = ", ".join(f"{a} / {b} {times.ratio(a, b)}" for a, b in pairs)
    print(f"{inputs} -> {outputs}, M {M}: {ratios}", flush=True)
    return {"case": layer_case(outputs, inputs, M, "forward"), **times.as_dict(pairs)}


def main(argv: Sequence[str] | None = None) -> int:
    given = arguments("A packed int8 layer and an fp32 one, on the CPU.", 9, argv)
    shapes, counts = (list(LAYERS)[:1], ROWS[:1]) if given.smallest else (list(LAYERS), ROWS)
    torch.set_num_threads(1)
    with use_backend("native"):
        rows = [measure(*shape, M, given.rounds) for M in counts for shape in shapes]
        settings = {
            "way": way(native=True),
            "why not torch._int_mm": why_not_int_mm(),
            "native code": int8_instructions(),
            "clock": "time.thread_time",
        }
    finish("packed_linear", rows, settings, given)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
