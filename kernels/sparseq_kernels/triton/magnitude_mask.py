"""Host code of `magnitude_mask`: masks of many weights at once, without a launch for each or a wait for the device.

A table on the device says where each weight is. The units to drop are found by a radix select: digit after digit of the
magnitudes' bits is counted in chunks, and a program chooses the digit in which the last unit to drop lies. Among equals
the index decides, found from the chunks' counts of the last digit. What is added in no certain order are integers. A
last pass writes the masks, and their bits.
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..numerics import pack_mask
from ..patterns import Pattern
from ..reference.magnitude_mask import magnitude_mask as reference
from ..registry import implementation
from .kernels.magnitude_mask import (
    choose_digit_kernel,
    count_digits_kernel,
    find_tie_kernel,
    unit_scores_kernel,
    write_masks_kernel,
)
from .runtime.launch import launch, on

# Bits of a magnitude's 31 that each pass decides. Counting takes time as the number of digits does.
DIGITS = (7, 8, 8, 8)
# Values of a program's tile, and tiles of a program that counts. Bytes of bits, eight values each, that one writes.
VALUES = 2048
TILES = 16
BYTES = 256
# Units that a program scores.
UNITS = 512
# Offsets within a row are of 32 bits.
LONGEST_ROW = 2**30
TYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


class _Table(NamedTuple):
    """values: on the device, [fields, entries] as the kernels take them, the first field an entry's first program."""

    values: Tensor
    programs: int
    entries: int
    size: int  # A power of two that holds the entries.


# Tables from which a captured CUDA graph reads whenever it is replayed.
_captured: list[Tensor] = []


def _table(entries: Iterable[tuple[int, ...]], device: torch.device) -> _Table:
    """entries: the number of an entry's programs, and its other fields."""
    some = [entry for entry in entries if entry[0]]
    ends = list(itertools.accumulate(programs for programs, *_ in some))
    rows = [(end - programs, *fields) for end, (programs, *fields) in zip(ends, some, strict=True)]
    host = torch.tensor(rows, dtype=torch.int64, device="cpu").t().contiguous()
    if device.type == "cuda":
        # From pinned memory, for a copy from other memory may wait for the device.
        host = host.pin_memory()
        if torch.cuda.is_current_stream_capturing():
            _captured.append(host)
    return _Table(host.to(device, non_blocking=True), ends[-1], len(some), triton.next_power_of_2(len(some)))


@implementation("magnitude_mask", "triton")
def magnitude_mask(weights: list[Tensor], sparsity: float, pattern: str) -> list[Tensor]:
    return _masks(weights, sparsity, pattern, False)[0]


def magnitude_mask_bits(weights: list[Tensor], sparsity: float, pattern: str) -> tuple[list[Tensor], list[Tensor]]:
    """(masks, their bits as `formats.pack_mask` has them: uint8 [rows, ceil(columns / 8)]), written in one pass."""
    return _masks(weights, sparsity, pattern, True)


def _masks(weights: list[Tensor], sparsity: float, pattern: str, packed: bool) -> tuple[list[Tensor], list[Tensor]]:
    p = Pattern.parse(pattern)
    masks = [torch.empty(w.shape, dtype=torch.bool, device=w.device) for w in weights]
    shapes = [(len(w), -(-w.shape[1] // 8)) for w in weights]
    bits = [torch.empty(s, dtype=torch.uint8, device=m.device) for s, m in zip(shapes, masks, strict=True) if packed]
    rows, columns = p.block
    units = [m.numel() // (rows * columns) for m in masks]
    total = sum(units)
    if total == 0:
        return masks, bits
    tile = (rows, columns, p.unit if p.kind == "n:m" else 0)
    if any(w.shape[1] > LONGEST_ROW for w in weights):
        masks = reference(weights, sparsity, pattern)
        return masks, [pack_mask(m) for m in masks if packed]
    with on(weights[0]):
        values = _readable(weights)
        count = p.dropped(total, sparsity)
        scores = limit = None
        if count == 0:
            limit = torch.full((2,), -1, dtype=torch.int64, device=masks[0].device)
        elif p.kind == "unstructured":
            limit = _limit(values, count)
        elif p.kind == "block" or count < total:  # Otherwise every group is pruned to N.
            scores = _scores(values, units, tile)
            limit = _limit([scores], count)
        fields = zip(shapes, values, masks, bits or masks, _starts(units), strict=True)
        entries = (
            (-(-r * c // BYTES), v.data_ptr(), m.data_ptr(), b.data_ptr(), *m.shape, n) for (r, c), v, m, b, n in fields
        )
        table = _table(entries, masks[0].device)
        even = all(m.shape[1] % 8 == 0 for m in masks)
        launch(
            write_masks_kernel,
            (table.programs, 1, 1),
            (table.values, scores, limit, table.entries),
            (TYPES[values[0].dtype], table.size, even, *tile, packed, BYTES),
            num_warps=4,
            num_stages=1,
        )
    return masks, bits


def _readable(weights: Sequence[Tensor]) -> list[Tensor]:
    """The weights as the kernels take them: side by side, aligned, and of one type, which loses nothing in magnitude
    that the reference does not lose in its fp32; a copy only of those that are not."""
    types = {w.dtype for w in weights}
    dtype = types.pop() if len(types) == 1 and types <= TYPES.keys() else torch.float32
    found = [w.detach().to(dtype).contiguous() for w in weights]
    return [w.clone() if w.data_ptr() % 16 else w for w in found]


def _starts(sizes: Sequence[int]) -> list[int]:
    return [end - size for end, size in zip(itertools.accumulate(sizes), sizes, strict=True)]


def _scores(values: Sequence[Tensor], units: Sequence[int], tile: tuple[int, int, int]) -> Tensor:
    """The scores of all units, one weight's after another's."""
    device = values[0].device
    scores = torch.empty(sum(units), dtype=torch.float32, device=device)
    fields = zip(values, units, _starts(units), strict=True)
    table = _table(((-(-n // UNITS), v.data_ptr(), v.shape[1], n, start) for v, n, start in fields), device)
    launch(
        unit_scores_kernel,
        (table.programs, 1, 1),
        (table.values, scores, table.entries),
        (TYPES[values[0].dtype], table.size, *tile, UNITS),
        num_warps=4,
        num_stages=1,
    )
    return scores


def _limit(values: Sequence[Tensor], count: int) -> Tensor:
    """int64 [2]: of `count` values that are the lowest in magnitude, taken with the index among equals, the last one's
    key and the index after its."""
    device, dtype = values[0].device, TYPES[values[0].dtype]
    sizes = [v.numel() for v in values]
    fields = zip(sizes, values, _starts(sizes), strict=True)
    table = _table(((-(-n // (TILES * VALUES)), v.data_ptr(), n, start) for n, v, start in fields), device)
    even = all(n % 8 == 0 for n in sizes)
    chosen: Tensor | None = None
    shift = 31
    for digit in DIGITS:
        shift -= digit
        new = torch.empty if chosen is None else torch.zeros
        counts = new((table.programs, 1 << digit), dtype=torch.int32, device=device)
        launch(
            count_digits_kernel,
            (table.programs, 1, 1),
            (table.values, chosen, counts, table.entries),
            (dtype, table.size, even, digit, shift, TILES, VALUES),
            num_warps=4,
            num_stages=1,
        )
        before, chosen = chosen, torch.empty(2, dtype=torch.int64, device=device)
        rank = count if before is None else 0
        launch(
            choose_digit_kernel, (1, 1, 1), (counts.sum(0), before, chosen, rank), (digit,), num_warps=1, num_stages=1
        )
    limit = torch.empty(2, dtype=torch.int64, device=device)
    launch(
        find_tie_kernel,
        (1, 1, 1),
        (table.values, chosen, counts, limit, table.entries, table.programs),
        (dtype, table.size, DIGITS[-1], TILES, VALUES),
        num_warps=4,
        num_stages=1,
    )
    return limit
