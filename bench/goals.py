"""The goals of the GPU kernels, and how results compare with them, in Markdown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.common import read_results
from bench.kernels.cases import FIRST_SIZES, OURS, ROWS
from bench.render import table

Row = Mapping[str, Any]
INT8_INPUT, INT_MM = f"{OURS}, x as int8", "torch._int_mm"
TORCHAO = "torchao int8 dynamic, compiled"
BF16, FAKE = "bf16 nn.Linear", "torch fake_quantize + nn.Linear"


@dataclass(frozen=True)
class TimesAsFast:
    """time(to) / time(of) of a row, None where one of them was not timed."""

    of: str
    to: str

    def __call__(self, row: Row) -> float | None:
        pair = (self.of, self.to)
        return next((1 / ratio["median"] for ratio in row["ratios"] if (ratio["of"], ratio["to"]) == pair), None)


def floor_reached(row: Row) -> float | None:
    fraction: float | None = row.get("floor", {}).get("datasheet", {}).get("fraction")
    return fraction


def memory_of(peer: str) -> Callable[[Row], float | None]:
    """peak memory / the peer's"""

    def value(row: Row) -> float | None:
        peaks = row.get("peak_bytes", {})
        return peaks[OURS] / peaks[peer] if peaks.get(peer) else None

    return value


def of_density(row: Row) -> float | None:
    """The dense product's time by the density, of the time taken: 1 where nothing is lost by being sparse."""
    value = _LIKE_DENSE(row)
    return None if value is None else value * (1 - float(row["case"]["sparsity"]))


def of_pattern(pattern: str, value: Callable[[Row], float | None]) -> Callable[[Row], float | None]:
    """`value` of the rows with that pattern alone."""
    return lambda row: value(row) if pattern in row["case"]["layer"] else None


# Fewer rows take about as long as a launch, of which a floor knows nothing.
LIMIT_AT = 8192


@dataclass(frozen=True)
class Goal:
    """text: what is measured. wanted: at least, at the numbers of rows `at`; None where it is only of interest. speed:
    whether it is the larger the less time the op takes whose floor a row has."""

    text: str
    op: str
    value: Callable[[Row], float | None]
    wanted: float | None
    at: Callable[[int], bool]
    speed: bool = True


def many(M: int) -> bool:
    return M >= 1024


def few(M: int) -> bool:
    return M <= 16


_LIKE_INT_MM = TimesAsFast(INT8_INPUT, INT_MM)
_BLOCKS_LIKE_MASKED = of_pattern("64x64", TimesAsFast(OURS, "weight * mask, nn.Linear"))
_LOOSE_LIKE_DENSE = of_pattern("unstructured", TimesAsFast(OURS, "dense nn.Linear"))
_LIKE_DENSE = TimesAsFast(OURS, "dense int8_linear")
_INT8_LIKE_BF16 = TimesAsFast(INT8_INPUT, BF16)
_LIKE_BF16 = TimesAsFast(OURS, BF16)
GOALS = (
    Goal("int8_linear of int8 x, times as fast as torch._int_mm", "int8_linear", _LIKE_INT_MM, 0.95, many, False),
    Goal("int8_linear of int8 x, times as fast as bf16 nn.Linear", "int8_linear", _INT8_LIKE_BF16, None, many, False),
    Goal("int8_linear, times as fast as bf16 nn.Linear", "int8_linear", _LIKE_BF16, 1.5, many),
    Goal("int8_linear, times as fast as torchao", "int8_linear_compiled", TimesAsFast(OURS, TORCHAO), 1.3, many),
    Goal("int8_linear of few rows, times as fast as bf16 nn.Linear", "int8_linear", _LIKE_BF16, 1.0, few),
    Goal("int8_linear, fraction of the datasheet's floor", "int8_linear", floor_reached, 0.7, few, False),
    Goal("bitmask_int8_linear of 60 %, times as fast as dense", "bitmask_int8_linear", _LIKE_DENSE, 1.4, few),
    Goal("block_sparse_int8_linear, density x dense's time / time", "block_sparse_int8_linear", of_density, 0.87, many),
    Goal("semi_structured_int8_linear, times as fast as dense", "semi_structured_int8_linear", _LIKE_DENSE, None, few),
    Goal(
        "masked_linear, 90 % in 64x64, times as fast as masked dense", "masked_linear", _BLOCKS_LIKE_MASKED, 4.0, many
    ),
    Goal("masked_linear, unstructured, times as fast as dense", "masked_linear", _LOOSE_LIKE_DENSE, 0.91, many),
    Goal("qat_linear forward + backward, times as fast as bf16", "qat_linear", _LIKE_BF16, 1.0, many),
    Goal("qat_linear, times as fast as torch's fake-quant", "qat_linear", TimesAsFast(OURS, FAKE), 2.0, many),
    Goal("qat_linear, peak memory / bf16 nn.Linear's", "qat_linear", memory_of(BF16), None, many, False),
    Goal("qat_linear, peak memory / torch's fake-quant's", "qat_linear", memory_of(FAKE), None, many, False),
)


def newest(folder: Path) -> Mapping[str, Any] | None:
    """Of the results that goals are for, the last one that was taken on a GPU; None without any."""
    results = [result for op in {goal.op for goal in GOALS} for result in read_results(op, folder, "gpu")]
    return max(results, key=lambda result: str(result["date"]), default=None)


def goals(folder: Path) -> str:
    """How the results of one GPU, that of the `newest`, compare with what was aimed at, in Markdown.

    A line a goal, a column a number of rows: the median over the layers of base and large, and their range. The limit
    is the median for an op that takes no longer than its bytes and operations at the datasheet's rates.
    """
    head = ["", "wanted", f"limit, M = {LIMIT_AT}", *(f"M = {M}" for M in ROWS[True])]
    return table(head, (_goal(goal, rows_of(goal.op, folder)) for goal in GOALS))


def rows_of(op: str, folder: Path) -> list[Row]:
    """The rows of the sizes that goals are for; of all sizes where those were not measured."""
    last = newest(folder)
    gpu = last["machine"]["gpu"] if last else None
    results = [result for result in read_results(op, folder, "gpu") if result["machine"].get("gpu") == gpu]
    rows = [row for result in results for row in result["rows"] if "failed" not in row]
    first = [row for row in rows if not set(FIRST_SIZES).isdisjoint(row["case"]["size"].split(", "))]
    return first or rows


def _goal(goal: Goal, rows: Sequence[Row]) -> list[str]:
    cells = [goal.text, f">= {goal.wanted:g}" if goal.wanted else "", _limit(goal, rows)]
    for M in ROWS[True]:
        of_size = [row for row in rows if row["case"]["M"] == M]
        values = [value for row in of_size if (value := goal.value(row)) is not None]
        cells.append(_cell(values, goal.wanted if goal.at(M) else None) or _why_absent(goal, of_size))
    return cells


def _why_absent(goal: Goal, rows: Sequence[Row]) -> str:
    """What a cell says where the peer of a goal was not timed: "not installed", or that the peer cannot do it."""
    peer = goal.value.to if isinstance(goal.value, TimesAsFast) else None
    reasons = {row["absent"][peer] for row in rows if peer in row.get("absent", {})}
    if not reasons:
        return ""
    return "not installed" if any("is not installed" in reason for reason in reasons) else "no peer"


def _limit(goal: Goal, rows: Sequence[Row]) -> str:
    values = [
        value / reached
        for row in rows
        if goal.speed and goal.at(LIMIT_AT) and row["case"]["M"] == LIMIT_AT
        if (value := goal.value(row)) is not None and (reached := floor_reached(row))
    ]
    return f"{median(values):.2f}" if values else ""


def _cell(values: Sequence[float], wanted: float | None) -> str:
    if not values:
        return ""
    text = f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
    return text if wanted is None else f"{text} {'met' if median(values) >= wanted else 'missed'}"
