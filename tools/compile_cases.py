"""The calls whose kernels are compiled in advance: every op of the Triton backend, at the layer sizes of the six BERTs.

Activations are bf16 and master weights fp32, as in training under autocast. Other types and rarer options come at the
width of BERT-base alone, and int8_linear at a width that 16 does not divide. Tensors are never written: of the largest,
only addresses are taken.
"""

import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import torch
import triton
from torch import Tensor

from bench.kernels import OPS
from sparseq.models import BERT_VOCABULARY, SIZES
from sparseq_kernels.block_index import layout
from sparseq_kernels.triton.block_products import masked_values
from sparseq_kernels.triton.magnitude_mask import magnitude_mask_bits
from sparseq_kernels.triton.runtime import tuned
from sparseq_kernels.triton.runtime.heuristics import SKINNY_ROWS
from tools.absent_gpu import ARCHITECTURES

ROWS = (1, 16, 128, 1024, 8192)
BASE = SIZES["base"].hidden
HIDDEN = sorted({spec.hidden for spec in SIZES.values()})
# Of TinyBERT: rows of so many bytes are not loaded 16 at a time.
RAGGED = 312
FLOATS = (torch.bfloat16, torch.float16, torch.float32)
BF16 = torch.bfloat16

ops = torch.ops.sparseq


@dataclass(frozen=True)
class Case:
    """A call of torch.ops.sparseq.<op>, and its text. device: the GPU's name, for a config that was measured on it."""

    op: str
    text: str
    run: Callable[[], Any]
    device: str = ""


def new(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype)


def layers(hidden: int) -> tuple[tuple[int, int], ...]:
    """(outputs, inputs) of a block's layers; the first of them feeds a GELU."""
    return (4 * hidden, hidden), (hidden, hidden), (hidden, 4 * hidden)


def cases() -> Iterator[Case]:
    for hidden, M in product(HIDDEN, ROWS):
        rich = hidden == BASE
        for outputs, inputs in layers(hidden):
            yield from int8_linear(M, outputs, inputs, rich)
            yield from qat_linear(M, outputs, inputs, rich)
            if rich:
                yield from sparse(M, outputs, inputs)
            yield from masked_linear(M, outputs, inputs, rich)
        yield from row_ops(M, hidden, rich)
    # A decoder over the vocabulary: more columns than any GPU has processors for.
    yield from int8_linear(16, BERT_VOCABULARY, 1024, True)
    for outputs, inputs in layers(RAGGED):
        yield from int8_linear(16, outputs, inputs, False)
        yield from int8_linear(1024, outputs, inputs, True)
    yield from fake_quant()
    yield from magnitude_mask()
    yield from of_benchmarks()


def of_benchmarks() -> Iterator[Case]:
    """The calls of ops that are not above: what the benchmark of each, `bench_OP.py`, names by `compiled_calls()`, as
    pairs of a text and a call."""
    for op in OPS:
        module = importlib.import_module(f"bench.kernels.bench_{op}")
        for text, run in module.compiled_calls() if hasattr(module, "compiled_calls") else ():
            yield Case(op, text, run)


def tuned_cases(arch: str) -> Iterator[Case]:
    """Calls that run by the configs measured on GPUs of that architecture under this version of Triton."""
    for path in sorted(tuned.FOLDER.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        same = content["triton"].split(".")[:2] == triton.__version__.split(".")[:2]
        if not same or not any(board in content["device"] for board in ARCHITECTURES[arch].boards):
            continue
        for config in content["configs"]:
            M, N, K = config["M"], config["N"], config["K"]
            found = [case for case in int8_linear(M, N, K, False) if f"x {_name(torch.int8)} " in case.text]
            yield from (replace(case, device=content["device"]) for case in found)


def int8_linear(M: int, N: int, K: int, rich: bool) -> Iterator[Case]:
    def case(
        dtype: torch.dtype, activation: str, text: str = "", bias_dtype: torch.dtype | None = None, **options: Any
    ) -> Case:
        def run() -> Any:
            x, bias = new(M, K, dtype=dtype), new(N, dtype=bias_dtype or (BF16 if dtype == torch.int8 else dtype))
            weight, scale = new(N, K, dtype=torch.int8), new(N)
            given = {name: value() for name, value in options.items()}
            return ops.int8_linear(x, weight, scale, bias, activation=activation, **given)

        return Case("int8_linear", f"x {_name(dtype)} [{M}, {K}], weight [{N}, {K}], {activation}{text}", run)

    activation = "gelu" if N > K else "none"
    rows = {"input_scale": lambda: new(M), "out_dtype": lambda: BF16}
    yield case(BF16, activation)
    yield case(torch.int8, activation, " -> bf16", **rows)
    if rich:
        yield from (case(dtype, activation) for dtype in FLOATS[1:])
        yield from (case(BF16, other) for other in ("relu", "gelu_tanh"))
        yield case(BF16, activation, ", static", input_scale=lambda: new(1))
        yield case(BF16, activation, ", requantized", output_scale=lambda: new(1))
        yield case(torch.int8, activation, ", requantized", input_scale=lambda: new(M), output_scale=lambda: new(1))
        if M > SKINNY_ROWS:
            # A bias that stayed fp32, as in a model trained under autocast: it takes most registers at a tile's end.
            for out in FLOATS:
                given = {"input_scale": lambda: new(M), "out_dtype": lambda out=out: out}
                yield case(torch.int8, activation, f", bias fp32 -> {_name(out)}", torch.float32, **given)
            given = {"input_scale": lambda: new(M), "output_scale": lambda: new(1)}
            yield case(torch.int8, activation, ", bias fp32, requantized", torch.float32, **given)


def sparse(M: int, N: int, K: int) -> Iterator[Case]:
    """A quarter of the blocks, two fifths of the weights, two of four."""
    bytes_, counts = torch.uint8, torch.int32

    def case(op: str, text: str, *stored: tuple[tuple[int, ...], torch.dtype]) -> Case:
        def run() -> Any:
            tensors = [new(*shape, dtype=dtype) for shape, dtype in stored]
            return getattr(ops, op)(new(M, K, dtype=BF16), *tensors, new(N), new(N, dtype=BF16))

        return Case(op, f"x bf16 [{M}, {K}], weight [{N}, {K}], {text}", run)

    for r, c in ((16, 16), (32, 32), (64, 64), (128, 128)):
        count, rows = N * K // (4 * r * c), N // r
        lists = [((count,), counts), ((rows + 1,), counts), ((rows,), counts)]
        yield case("block_sparse_int8_linear", f"{r}x{c}", ((count, r, c), torch.int8), *lists)
    kept, bits = (2 * N * K // 5,), (N, -(-K // 8))
    offsets = ((N, -(-K // 256)), counts)
    yield case("bitmask_int8_linear", "unstructured", (kept, torch.int8), (bits, bytes_), offsets)
    yield case("semi_structured_int8_linear", "2:4", ((N, K // 2), torch.int8), (bits, bytes_))


def qat_linear(M: int, N: int, K: int, rich: bool) -> Iterator[Case]:
    def case(
        text: str,
        dtype: torch.dtype,
        masked: bool,
        learned: bool,
        bits: tuple[int, int] = (8, 8),
        listed: bool = False,
    ) -> Case:
        def run() -> Any:
            x, weight, bias = new(M, K, dtype=dtype), new(N, K), new(N)
            mask = new(N, K, dtype=torch.bool) if masked else None
            scales = (new(N), new(1)) if learned else (None, None)
            tiles = tile_lists(N, K) if listed else None
            y, *kept = ops.qat_linear(x, weight, bias, mask, *scales, *bits, None, False, tiles)
            needs = [True, True, True, learned, learned]
            return ops.qat_linear_backward(
                new(M, N, dtype=y.dtype), x, weight, mask, *scales, kept, *bits, dtype, False, needs, tiles
            )

        return Case("qat_linear", f"x {_name(dtype)} [{M}, {K}], weight [{N}, {K}]{text}, and backward", run)

    yield case(", masked", BF16, True, False)
    yield case("", BF16, False, False)
    yield case(", tiles", BF16, True, False, listed=True)
    if rich:
        yield case(", tiles, learned scales", BF16, True, True, listed=True)
        yield from (case(", masked", dtype, True, False) for dtype in FLOATS[1:])
        yield case(", learned scales", BF16, False, True)
        yield case(", masked, learned scales", BF16, True, True)
        yield case(", 16 bits", BF16, False, False, (8, 16))


def tile_lists(N: int, K: int) -> list[Tensor]:
    """As `BlockIndex.tensors()` of a mask [N, K]."""
    return [new(*shape, dtype=dtype) for shape, dtype in layout(N, K).values()]


def masked_linear(M: int, N: int, K: int, rich: bool) -> Iterator[Case]:
    for dtype in FLOATS if rich else FLOATS[:1]:

        def run(dtype: torch.dtype = dtype) -> Any:
            x, weight, mask, tiles = new(M, K, dtype=dtype), new(N, K), new(N, K, dtype=torch.bool), tile_lists(N, K)
            y = ops.masked_linear(x, weight, mask, new(N, dtype=dtype), False, tiles)
            needs = [True, True, True]
            return ops.masked_linear_backward(y, x, weight, mask, False, needs, tiles)

        yield Case("masked_linear", f"x {_name(dtype)} [{M}, {K}], weight [{N}, {K}], tiles, and backward", run)
    if rich:
        yield Case("masked_linear", f"weight [{N}, {K}] as it is masked for torch", _bound_values(N, K))


def _bound_values(N: int, K: int) -> Callable[[], Any]:
    return lambda: masked_values(new(N, K), new(N, K, dtype=torch.bool), None, BF16)


def row_ops(M: int, hidden: int, rich: bool) -> Iterator[Case]:
    """What quantizes rows, and the embedding."""
    for dtype in FLOATS if rich else FLOATS[:1]:
        for width, bits in [(hidden, 8), (4 * hidden, 8), *([(hidden, 16)] if rich else [])]:
            text = f"{_name(dtype)} [{M}, {width}], {bits} bits"
            yield Case("quantize_rows", text, _bound(ops.quantize_rows, (M, width), dtype, bits))
        text = f"{_name(dtype)} [{M}, {4 * hidden}]"
        yield Case("gelu_quantize_rows", text, _bound(ops.gelu_quantize_rows, (M, 4 * hidden), dtype, "none", 8))
        if rich:
            run = _bound(ops.gelu_quantize_rows, (M, 4 * hidden), dtype, "tanh", 8)
            yield Case("gelu_quantize_rows", f"{text}, tanh", run)
        yield from layer_norm(M, hidden, dtype, rich)
        yield embedding(M, hidden, dtype)


def _bound(op: Callable[..., Any], shape: tuple[int, ...], dtype: torch.dtype, *rest: Any) -> Callable[[], Any]:
    return lambda: op(new(*shape, dtype=dtype), *rest)


def layer_norm(M: int, hidden: int, dtype: torch.dtype, rich: bool) -> Iterator[Case]:
    for residual in (True, False) if rich else (True,):

        def run(residual: bool = residual) -> Any:
            x, weight = new(M, hidden, dtype=dtype), new(hidden, dtype=dtype)
            return ops.layer_norm_quantize_rows(x, x if residual else None, weight, weight)

        text = f"{_name(dtype)} [{M}, {hidden}]{', residual' if residual else ''}"
        yield Case("layer_norm_quantize_rows", text, run)


def embedding(M: int, hidden: int, dtype: torch.dtype) -> Case:
    def run() -> Any:
        indices, rows = new(M, dtype=torch.int64), SIZES["base"].vocabulary
        return ops.int8_embedding(indices, new(rows, hidden, dtype=torch.int8), new(rows), dtype)

    return Case("int8_embedding", f"{_name(dtype)} [{M}, {hidden}]", run)


def fake_quant() -> Iterator[Case]:
    """Of weights with a scale a row or a column, and of activations with one, at a narrow and at the widest layer."""
    shapes = [(HIDDEN[0], HIDDEN[0]), (BASE, 4 * BASE), (ROWS[-1], 4 * HIDDEN[-1])]
    for (R, C), dtype in product(shapes, FLOATS):
        for by, scale in (("row", (R, 1)), ("column", (C,)), ("tensor", ())):

            def run(R: int = R, C: int = C, dtype: torch.dtype = dtype, scale: tuple[int, ...] = scale) -> Any:
                x, s = new(R, C, dtype=dtype), new(*scale)
                return ops.fake_quant(x, s, 8), ops.fake_quant_backward(x, x, s, 8)

            yield Case("fake_quant", f"{_name(dtype)} [{R}, {C}] by {by}, and backward", run)


def magnitude_mask() -> Iterator[Case]:
    """Of a block's layers, with the masks' bits and without, and of one whose rows end within a byte."""
    whole, ragged = layers(BASE), ((BASE, BASE - 4),)
    kinds = [(magnitude_mask_bits, whole, dtype) for dtype in FLOATS]
    kinds += [(ops.magnitude_mask, whole, torch.float32), (magnitude_mask_bits, ragged, torch.float32)]
    asked = [("unstructured", 0.5), ("2:4", 0.5), ("2:4", 0.25), ("4x4", 0.5)]
    for (select, shapes, dtype), (pattern, sparsity) in product(kinds, asked):

        def run(
            select: Callable[..., Any] = select,
            shapes: tuple[tuple[int, int], ...] = shapes,
            dtype: torch.dtype = dtype,
            sparsity: float = sparsity,
            pattern: str = pattern,
        ) -> Any:
            return select([new(*shape, dtype=dtype) for shape in shapes], sparsity, pattern)

        yield Case("magnitude_mask", f"{_name(dtype)} {list(shapes)}, {pattern} at {sparsity}", run)


def _name(dtype: torch.dtype) -> str:
    return {BF16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}.get(dtype, str(dtype).removeprefix("torch."))
