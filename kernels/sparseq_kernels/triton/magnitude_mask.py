"""Masks of many weights at once: no launch for each weight, and no wait for the device in between.

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

from ..formats import pack_mask
from ..reference.magnitude_mask import NAN_KEY, checked, dropped
from ..reference.magnitude_mask import magnitude_mask as reference
from .launch import launch, on
from .numerics import magnitude_bits

# Bits of a magnitude's 31 that each pass decides. Counting takes time as the number of digits does, and 2^8 of them
# about as long as reading the values from an H100's memory.
DIGITS = (7, 8, 8, 8)
# Values of a program's tile, and tiles of a program that counts. Bytes of bits, eight values each, that one writes.
VALUES = 2048
TILES = 16
BYTES = 256
# Units that a program scores.
UNITS = 512
# Offsets within a row are of 32 bits.
LONGEST_ROW = 2**30
LARGEST_KEY = tl.constexpr(NAN_KEY)
# Up to so many values of a tile are counted one by one: all of a tile take longer than to read them, and after two
# digits hardly any are left.
FEW = tl.constexpr(64)
NO_PROGRAM = tl.constexpr(2**62)
TYPES = {torch.float32: tl.float32, torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}


@triton.jit
def magnitude_key(x):
    """An int32 that orders as |x| does, with every NaN the same above infinity."""
    return tl.minimum(magnitude_bits(x), LARGEST_KEY)


@triton.jit
def find_entry(table, entries, ENTRIES: tl.constexpr):
    """(the entry of a table whose programs this one is among, which of them it is). Its first field is the first."""
    each = tl.arange(0, ENTRIES)
    first = tl.load(table + each, mask=each < entries, other=NO_PROGRAM)
    program = tl.program_id(0).to(tl.int64)
    entry = tl.sum((first <= program).to(tl.int32)) - 1
    return table + entry, program - tl.load(table + entry)


@triton.jit
def pointer_field(entry, field, TYPE: tl.constexpr):
    """A pointer in a table, to memory aligned to 16 bytes."""
    return tl.multiple_of(tl.load(entry + field).to(tl.pointer_type(TYPE)), 16)


@triton.jit
def lower_in_group(group, key, place, inside, M: tl.constexpr):
    """How many of the M values at `group` rank below the one with this key at this place."""
    lower = tl.zeros(key.shape, tl.int32)
    for other_place in range(0, M):
        other = magnitude_key(tl.load(group + other_place, mask=inside, other=0.0))
        below = (other < key) | ((other == key) & (place > other_place))
        lower += below.to(tl.int32)
    return lower


@triton.jit(do_not_specialize=["entries"])
def unit_scores_kernel(
    table,  # [5, entries]: first program, weight, its columns, its units, the index of its first unit
    scores,  # [all units]
    entries,
    TYPE: tl.constexpr,
    ENTRIES: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DROP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Of blocks ROWS x COLUMNS the sum of magnitudes; with DROP, of groups 1 x COLUMNS that of the DROP lowest."""
    entry, tile = find_entry(table, entries, ENTRIES)
    weight = pointer_field(entry, entries, TYPE)
    columns, units = tl.load(entry + 2 * entries), tl.load(entry + 3 * entries)
    across = columns // COLUMNS
    start = tile * BLOCK
    inside = tl.arange(0, BLOCK) < units - start
    # 32 bits do for a tile's units, counted from the first of the row that it begins in.
    unit = (start % across).to(tl.int32) + tl.arange(0, BLOCK)
    row = start // across + unit // across.to(tl.int32)
    weight += row * ROWS * columns + (unit % across.to(tl.int32)).to(tl.int64) * COLUMNS
    total = tl.zeros((BLOCK,), tl.float32)
    for _ in range(0, ROWS):
        of_row = tl.zeros((BLOCK,), tl.float32)
        for place in range(0, COLUMNS):
            value = tl.abs(tl.load(weight + place, mask=inside, other=0.0).to(tl.float32))
            if DROP:
                lower = lower_in_group(weight, magnitude_key(value), place, inside, COLUMNS)
                value = tl.where(lower < DROP, value, 0.0)
            of_row += value
        total += of_row
        weight += columns
    tl.store(scores + tl.load(entry + 4 * entries) + start + tl.arange(0, BLOCK), total, mask=inside)


@triton.jit(do_not_specialize=["entries"])
def count_digits_kernel(
    table,  # [3, entries]: first program, values, how many
    chosen,  # [2]: the digits chosen so far, and see `choose_digit_kernel`; None at first
    counts,  # [programs, 2^BITS], zeros unless `chosen` is None
    entries,
    TYPE: tl.constexpr,
    ENTRIES: tl.constexpr,
    EVEN: tl.constexpr,
    BITS: tl.constexpr,
    SHIFT: tl.constexpr,
    TILES: tl.constexpr,
    VALUES: tl.constexpr,
):
    """How often each digit comes next among the keys that begin with the chosen ones, in each chunk."""
    entry, chunk = find_entry(table, entries, ENTRIES)
    values, size = pointer_field(entry, entries, TYPE), tl.load(entry + 2 * entries)
    if EVEN:
        size = tl.multiple_of(size, 8)
    digits = tl.arange(0, 1 << BITS)
    counts += tl.program_id(0).to(tl.int64) << BITS
    found = tl.zeros((1 << BITS,), tl.int32)
    for tile in range(0, TILES):
        at = (chunk * TILES + tile) * VALUES + tl.arange(0, VALUES)
        counted = at < size
        key = magnitude_key(tl.load(values + at, mask=counted, other=0.0))
        digit = (key >> SHIFT) & ((1 << BITS) - 1)
        if chosen is None:
            found += tl.histogram(digit, 1 << BITS, mask=counted)
        else:
            counted = counted & ((key >> (SHIFT + BITS)) == tl.load(chosen).to(tl.int32))
            if tl.sum(counted.to(tl.int32)) > FEW:
                found += tl.histogram(digit, 1 << BITS, mask=counted)
            else:
                tl.atomic_add(counts + digit, 1, mask=counted, sem="relaxed")
    if chosen is None:
        tl.store(counts + digits, found)
    else:
        tl.atomic_add(counts + digits, found, sem="relaxed")


@triton.jit(do_not_specialize=["rank"])
def choose_digit_kernel(
    counts,  # [2^BITS]
    before,  # [2], or None
    chosen,  # [2]
    rank,
    BITS: tl.constexpr,
):
    """Chooses the digit of the last unit to drop, which is the one of this rank, from 1. `chosen` is (its digits so
    far, its rank among the units that begin with them), and `before` the same without the last digit."""
    digits = tl.arange(0, 1 << BITS)
    count = tl.load(counts + digits)
    prefix = tl.zeros((), tl.int64)
    if before is not None:
        prefix, rank = tl.load(before), tl.load(before + 1)
    passed = tl.cumsum(count) < rank
    tl.store(chosen, (prefix << BITS) + tl.sum(passed.to(tl.int64)))
    tl.store(chosen + 1, rank - tl.sum(tl.where(passed, count, 0)))


@triton.jit(do_not_specialize=["entries", "chunks"])
def find_tie_kernel(
    table,  # [4, entries]: as `count_digits_kernel` takes it, and the index of the first value
    chosen,  # [2]
    counts,  # [chunks, 2^BITS], of the last digit
    limit,  # [2]
    entries,
    chunks,
    TYPE: tl.constexpr,
    ENTRIES: tl.constexpr,
    BITS: tl.constexpr,
    TILES: tl.constexpr,
    VALUES: tl.constexpr,
):
    """Writes the last unit to drop: its key, and the index after its."""
    key, rank = tl.load(chosen), tl.load(chosen + 1)
    each = tl.arange(0, VALUES)
    # Which chunk it lies in: as many chunks are passed as together have less than `rank` of them.
    chunk, passed, seen = key * 0, key * 0, key * 0
    counts += key & ((1 << BITS) - 1)
    for start in range(0, chunks, VALUES):
        inside = each < chunks - start
        count = tl.load(counts + ((start + each).to(tl.int64) << BITS), mask=inside, other=0).to(tl.int64)
        before = inside & (tl.cumsum(count) + seen < rank)
        chunk += tl.sum(before.to(tl.int64))
        passed += tl.sum(tl.where(before, count, 0))
        seen += tl.sum(count)
    rank -= passed
    layers = tl.arange(0, ENTRIES)
    first = tl.load(table + layers, mask=layers < entries, other=NO_PROGRAM)
    table += tl.sum((first <= chunk).to(tl.int32)) - 1
    values, size = pointer_field(table, entries, TYPE), tl.load(table + 2 * entries)
    start = (chunk - tl.load(table)) * (TILES * VALUES)
    # And where in it.
    index, seen = key * 0, key * 0
    for tile in range(0, TILES):
        at = start + tile * VALUES + each
        found = magnitude_key(tl.load(values + at, mask=at < size, other=0.0)) == key
        equal = (found & (at < size)).to(tl.int64)
        index += tl.sum((tl.cumsum(equal) + seen < rank).to(tl.int64))
        seen += tl.sum(equal)
    tl.store(limit, key)
    tl.store(limit + 1, tl.load(table + 3 * entries) + start + index + 1)


@triton.jit(do_not_specialize=["entries"])
def write_masks_kernel(
    table,  # [7, entries]: first program, weight, mask, bits, rows, columns, the index of its first unit
    scores,  # [all units], or None where the weights are their own
    limit,  # [2]: the key and the index of the first unit to keep, or None: none is dropped whole
    entries,
    TYPE: tl.constexpr,
    ENTRIES: tl.constexpr,
    EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DROP: tl.constexpr,
    BITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    entry, tile = find_entry(table, entries, ENTRIES)
    rows, columns = tl.load(entry + 4 * entries), tl.load(entry + 5 * entries)
    if EVEN:
        columns = tl.multiple_of(columns, 8)
    row_bytes = (columns + 7) // 8
    start = tile * BLOCK
    byte, bit = tl.arange(0, BLOCK), tl.arange(0, 8)[None, :]
    in_bytes = byte < tl.minimum(rows * row_bytes - start, BLOCK).to(tl.int32)
    # Where a value is: `base` for the tile, and from there 32 bits do.
    first_row = start // row_bytes
    if EVEN and (DROP or ROWS * COLUMNS == 1):
        base = start * 8
        at = byte[:, None] * 8 + bit
        inside = in_bytes[:, None] & (bit < 8)
    else:
        base = first_row * columns
        columns, row_bytes = columns.to(tl.int32), row_bytes.to(tl.int32)
        local = (start % row_bytes).to(tl.int32) + byte
        row, column = (local // row_bytes)[:, None], (local % row_bytes)[:, None] * 8 + bit
        at = row * columns + column
        inside = in_bytes[:, None] & (column < columns)
    # So for units: the tile's, and each value's own.
    unit_base, unit = base, at
    if DROP:
        within = (base % COLUMNS).to(tl.int32)
        unit_base, unit = base // COLUMNS, (at + within) // COLUMNS
    elif ROWS * COLUMNS > 1:
        across = columns // COLUMNS
        unit_base = first_row // ROWS * across
        unit = (row + (first_row % ROWS).to(tl.int32)) // ROWS * across + column // COLUMNS

    weight = pointer_field(entry, entries, TYPE) + base
    kept = at < 0
    if DROP or (limit is not None and scores is None):
        key = magnitude_key(tl.load(weight + at, mask=inside, other=0.0))
    if DROP:
        group = unit * COLUMNS - within
        kept = lower_in_group(weight + group, key, at - group, inside, COLUMNS) >= DROP
    if limit is not None:
        unit_base += tl.load(entry + 6 * entries)
        if scores is not None:
            key = magnitude_key(tl.load(scores + unit_base + unit, mask=inside, other=0.0))
        last = tl.load(limit).to(tl.int32)
        after = tl.minimum(tl.maximum(tl.load(limit + 1) - unit_base, 0), 2**31 - 1).to(tl.int32)
        kept = kept | (key > last) | ((key == last) & (unit >= after))
    tl.store(pointer_field(entry, 2 * entries, tl.uint8) + base + at, kept.to(tl.uint8), mask=inside)
    if BITS:
        bits = tl.sum((kept & inside).to(tl.int32) << bit, axis=1)
        tl.store(pointer_field(entry, 3 * entries, tl.uint8) + start + byte, bits.to(tl.uint8), mask=in_bytes)


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


def magnitude_mask(weights: list[Tensor], sparsity: float, pattern: str) -> list[Tensor]:
    return _masks(weights, sparsity, pattern, False)[0]


def magnitude_mask_bits(weights: list[Tensor], sparsity: float, pattern: str) -> tuple[list[Tensor], list[Tensor]]:
    """(masks, their bits as `formats.pack_mask` has them: uint8 [rows, ceil(columns / 8)]), written in one pass."""
    return _masks(weights, sparsity, pattern, True)


def _masks(weights: list[Tensor], sparsity: float, pattern: str, packed: bool) -> tuple[list[Tensor], list[Tensor]]:
    p = checked(weights, sparsity, pattern)
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
        count = dropped(total, sparsity, p)
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
            warps=4,
            stages=1,
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
        warps=4,
        stages=1,
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
            warps=4,
            stages=1,
        )
        before, chosen = chosen, torch.empty(2, dtype=torch.int64, device=device)
        rank = count if before is None else 0
        launch(choose_digit_kernel, (1, 1, 1), (counts.sum(0), before, chosen, rank), (digit,), warps=1, stages=1)
    limit = torch.empty(2, dtype=torch.int64, device=device)
    launch(
        find_tie_kernel,
        (1, 1, 1),
        (table.values, chosen, counts, limit, table.entries, table.programs),
        (dtype, table.size, DIGITS[-1], TILES, VALUES),
        warps=4,
        stages=1,
    )
    return limit
