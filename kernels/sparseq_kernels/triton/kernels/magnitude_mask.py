"""Device code of `magnitude_mask`: scoring, selecting and writing the masks of many weights.

Each kernel gets a table of all weights on the device; `find_entry` finds the weight that a program works on.
"""

import triton
import triton.language as tl

from ...numerics import NAN_KEY
from .numerics import magnitude_bits

LARGEST_KEY = tl.constexpr(NAN_KEY)
# Up to so many values of a tile are counted one by one: all of a tile take longer than to read them, and after two
# digits hardly any are left.
FEW = tl.constexpr(64)
NO_PROGRAM = tl.constexpr(2**62)


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
