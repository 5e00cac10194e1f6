"""What the tuner measures: the products of the six BERTs' layers, and the configs that each is tried with."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.check import require_close, require_equal
from bench.kernels.cases import LAYERS, first
from bench.target import Target
from sparseq_kernels import use_backend
from sparseq_kernels.reference.quantize_rows import quantize_rows
from sparseq_kernels.triton.runtime import heuristics, tuned
from sparseq_kernels.triton.runtime.device import INTERPRETER, Device
from sparseq_kernels.triton.runtime.gemm_config import GemmConfig
from sparseq_kernels.triton.runtime.heuristics import SKINNY_ROWS, may_quantize_inside

OPS = torch.ops.sparseq
OPERATIONS = ("int8_linear",)
# The numbers of tokens that are benchmarked, then those between.
FIRST_ROWS = (8192, 1024, 128, 16, 1)
ROWS = (*FIRST_ROWS, 4096, 2048, 512, 256, 64, 32, 8, 4, 2, 16384)
SMALLEST = (((128, 128),), (64, 1))


@dataclass(frozen=True)
class Product:
    """An op on a layer [M, inputs] -> [M, outputs], in which one config decides. x_bytes: a value's, 1 of int8."""

    op: str
    M: int
    outputs: int
    inputs: int
    x_bytes: int = 1

    def __str__(self) -> str:
        x = "" if self.x_bytes == 1 else f", x of {self.x_bytes} bytes a value"
        return f"{self.op}, {self.M} x {self.inputs} -> {self.outputs}{x}"

    @property
    def skinny(self) -> bool:
        return self.M <= SKINNY_ROWS

    @property
    def rank(self) -> tuple[bool, bool]:
        """Orders products, what matters most first: numbers of tokens that are benchmarked, then the larger sizes."""
        return self.M not in FIRST_ROWS, not first(LAYERS[self.outputs, self.inputs])

    @property
    def bytes(self) -> int:
        """About what it reads and writes."""
        return self.outputs * self.inputs + self.M * (2 * self.outputs + self.inputs)


def products(ops: Sequence[str], target: Target) -> list[Product]:
    """All of them, by their rank, and then the numbers of tokens in the order of ROWS."""
    layers, rows = SMALLEST if target.smallest else (tuple(reversed(LAYERS)), ROWS)
    found = [
        Product(op, M, *layer, x_bytes)
        for M in rows
        for layer in layers
        for op in ops
        for x_bytes in (1, target.dtype.itemsize)
        if x_bytes == 1 or may_quantize_inside(M)
    ]
    return sorted(found, key=lambda one: one.rank)


@dataclass(frozen=True)
class Inputs:
    """run: the product, by the config in force. check(result, by_rule): raises WrongResultError unless the result is
    the reference's, and that of the rules' config to the bit."""

    run: Callable[[], Tensor]
    check: Callable[[Tensor, Tensor], None]


def make_inputs(product: Product, target: Target) -> Inputs:
    run = make_run(product, target)
    with use_backend("reference"):
        expected = run()

    def check(result: Tensor, by_rule: Tensor) -> None:
        require_close(str(product), result, expected, 1e-2)
        require_equal(str(product), result, by_rule)

    return Inputs(run, check)


def make_run(product: Product, target: Target) -> Callable[[], Tensor]:
    """Of levels but for few rows: what else comes in floating point is quantized before, and then is such a product
    too, also in QAT."""
    M, N, K = product.M, product.outputs, product.inputs
    # With the activation that a BERT's layer of this shape ends with.
    activation = "gelu" if N > K else "none"
    x = torch.randn(M, K, device=target.device, dtype=target.dtype)
    levels, rows = quantize_rows(x, 8)
    weight, scale = quantize_rows(torch.randn(N, K, device=target.device), 8)
    bias = torch.randn(N, device=target.device)
    if product.x_bytes > 1:
        return lambda: OPS.int8_linear(x, weight, scale, bias, None, activation, target.dtype)
    return lambda: OPS.int8_linear(levels, weight, scale, bias, rows, activation, target.dtype)


@contextlib.contextmanager
def by_the_rules() -> Iterator[list[tuned.Key]]:
    """Within it the rules of `heuristics` alone decide, and the list notes the products that they are asked for."""
    asked: list[tuned.Key] = []
    find = tuned.find

    def note(kind: str, M: int, N: int, K: int, x_bytes: int, device: Device) -> None:
        asked.append(tuned.key(kind, M, N, K, x_bytes))

    tuned.find = note
    try:
        yield asked
    finally:
        tuned.find = find
        forget()


def forget() -> None:
    """Has `heuristics` ask anew."""
    heuristics.int8_config.cache_clear()
    heuristics.gradient_config.cache_clear()


# (block_m, block_n, block_k, warps, stages, resident)
_TILES = (
    (128, 128, 128, 4, 3, 2), (128, 256, 128, 8, 3, 1), (128, 256, 64, 8, 4, 1), (256, 128, 128, 8, 3, 1),
    (128, 128, 128, 8, 4, 1), (64, 128, 128, 4, 4, 1), (64, 128, 128, 4, 3, 2), (64, 64, 128, 4, 4, 2),
    (64, 32, 256, 4, 4, 2),
)  # fmt: skip
# (block_n, block_k, warps, stages)
_SKINNY_TILES = (
    (16, 512, 4, 4), (16, 256, 4, 5), (16, 256, 2, 5), (32, 256, 4, 4), (64, 256, 4, 3), (128, 128, 8, 4)
)  # fmt: skip
_SKINNY_INSIDE_TILES = ((16, 512, 8, 4), (16, 256, 8, 4), (16, 256, 4, 4), (32, 256, 8, 4), (32, 512, 8, 3))
# Beyond so many rows there are enough tiles of any size, and small ones only load more.
_LARGE_TILES_ABOVE, _LARGE = 2048, 64 * 128


def expected_key(product: Product) -> tuned.Key:
    """What the config of a product is looked up by."""
    return tuned.key("int8", product.M, product.outputs, product.inputs, product.x_bytes)


def candidates(product: Product, key: tuned.Key, device: Device, target: Target) -> list[GemmConfig]:
    """The configs to try for a product whose config is looked up by `key`."""
    _, M, N, K, _ = key
    if product.skinny:
        block_m = 16 if product.M <= 16 else 32
        shares = [(tile, split) for tile in _SKINNY_TILES for split in _splits(M, N, K, (block_m, *tile[:2]), device)]
        found = [
            GemmConfig(block_m, n, k, warps, stages, split_k=split, quantize_inside=False)
            for (n, k, warps, stages), split in shares
        ]
        if product.x_bytes > 1:
            # Or quantized before, by the first of the configs for int8 x.
            found = [GemmConfig(block_m, *tile) for tile in _SKINNY_INSIDE_TILES] + found[:2]
    else:
        described = (True, False) if device.arch in ("sm_90", INTERPRETER) else (False,)
        most, least = max(64, 2 * M), _LARGE if M > _LARGE_TILES_ABOVE else 0
        found = [
            GemmConfig(m, n, k, warps, stages, quantize_inside=False, programs_per_sm=resident, descriptors=descriptors)
            for m, n, k, warps, stages, resident in _TILES
            for descriptors in described
            if m <= most and m * n >= least
        ]
    return found[-2 if target.smallest else None :]


def _splits(M: int, N: int, K: int, tile: Sequence[int], device: Device) -> list[int]:
    """In how many parts of the depth a product may be shared: in one, for then no second kernel is needed, and two
    choices more at most, so that each processor has about one program or two, and each program a few steps."""
    tiles = -(-M // tile[0]) * -(-N // tile[1])
    powers = [1 << i for i in range(1, 7)]
    fitting = [
        s for s in powers if s * 2 * tile[2] <= K and device.processors <= 2 * s * tiles <= 6 * device.processors
    ]
    return [1, *fitting[:2]]


def describe(config: GemmConfig) -> dict[str, Any]:
    """A config as the tuned files have it."""
    return {name: getattr(config, name) for name in config.__dataclass_fields__}
