"""Renders result files as Markdown tables."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.common import read_results
from bench.roofline import roof

NO_RESULTS = "No results yet.\n"
Row = Mapping[str, Any]
# Of a comparison with the better of several others: up to where it counts as not slower, and how many cases are shown.
NOT_SLOWER, WORST = 1.1, 12


def caption(result: Mapping[str, Any]) -> str:
    """Where and with what a result was taken."""
    versions = result["versions"]
    commit, _, changed = result["commit"].partition("+")
    taken = f"commit {commit[:10]}{' with changes' if changed else ''}, {result['date']}\n"
    if (machine := result.get("machine")) is None:  # of what depends on no machine
        software = ", ".join(f"{name} {version}" for name, version in versions.items())
        part = f"{coverage(result['settings'])}: " if "variants" in result["settings"] else ""
        return f"{part}{software}; {taken}"
    if "gpu" in machine:
        software = f"driver {machine['driver']}; torch {versions['torch']}, triton {versions['triton']}"
        return f"{machine['gpu']}, {software}; {taken}"
    units = [flag for flag in machine["flags"] if flag not in ("fma", "avx2")] or ["no AVX-512"]
    cores = f"{machine['threads']} of {machine['cores']} cores"
    cpu = f"{machine['cpu']} {machine['cpu_model']}" if "cpu_model" in machine else machine["cpu"]
    return f"{cpu}, {cores} ({', '.join(units)}); torch {versions['torch']}; {taken}"


def coverage(settings: Mapping[str, Any]) -> str:
    """How much of what could be compiled a result of the compile check has: all, or what was chosen of it."""
    if settings["compiled"] == settings["variants"]:
        return f"Everything, {settings['variants']:,} variants"
    kinds = ["the smallest set"] if settings["smallest"] else []
    kinds += [f"only {' and '.join(settings[name])}" for name in ("arch", "kernel") if settings[name]]
    part = f"{settings['compiled']:,} of {settings['variants']:,} variants"
    return f"**Not everything**: {part} ({', '.join(kinds)})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], text: int = 1) -> str:
    """text: how many columns at the left are text; the others are numbers."""
    lines = [head, ["---"] * text + ["---:"] * (len(head) - text), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def interval(value: Mapping[str, float], scale: float = 1.0) -> str:
    return f"{scale * value['median']:.3g} [{scale * value['low']:.3g}, {scale * value['high']:.3g}]"


def case_text(case: Mapping[str, Any]) -> str:
    return ", ".join(value if isinstance(value, str) else f"{key} {value}" for key, value in case.items())


def render_programs(rows: Sequence[Row]) -> str:
    """A line for each case and candidate: time, ratio, and what it keeps for the backward if that is known."""
    units = "a sentence" if "step" not in rows[0]["case"] else "a step"
    saves = "saved_bytes" in rows[0]
    head = ["case", "variant", f"ms {units}", "time ratio"] + (["MB kept for the backward"] if saves else [])
    lines = []
    for row in rows:
        ratios = {ratio["of"]: f"{interval(ratio)} of {ratio['to']}" for ratio in row["ratios"]}
        for name, seconds in row["seconds"].items():
            cells = [case_text(row["case"]), name, interval(seconds, 1e3), ratios.get(name, "1")]
            lines.append(cells + ([f"{row['saved_bytes'][name] / 1e6:.1f}"] if saves else []))
    return table(head, lines)


def render_kernel(rows: Sequence[Row]) -> str:
    """For each peer a table: a line a layer, a column for each number of rows (or pattern), the ratio to the peer; and
    before them one with the op's own times, and on a GPU with the fraction of their floor."""
    across = "M" if "M" in rows[0]["case"] else "pattern"
    columns = list(dict.fromkeys(row["case"][across] for row in rows))
    columns = sorted(columns) if across == "M" else columns
    layers = list(dict.fromkeys((row["case"]["size"], row["case"]["layer"]) for row in rows))
    timed = [row for row in rows if "failed" not in row]
    head = ["size", "layer", *(f"{across} = {column}" for column in columns)]

    def pivot(cell: Callable[[Row], str]) -> str:
        cells = {
            (row["case"]["size"], row["case"]["layer"], row["case"][across]): "failed" if "failed" in row else cell(row)
            for row in rows
        }
        return table(head, ([*layer, *(cells.get((*layer, column), "") for column in columns)] for layer in layers))

    def to_peer(pair: tuple[str, str]) -> Callable[[Row], str]:
        return lambda row: next((interval(r) for r in row["ratios"] if (r["of"], r["to"]) == pair), "")

    if not timed:
        return pivot(lambda row: "")
    ours = next(iter(timed[0]["seconds"]))
    step = timed[0]["case"]["step"].partition(",")[0]
    parts = [f"ms, {step}\n\n" + pivot(lambda row: interval(row["seconds"][ours], 1e3))]
    sources = {found["source"] for row in timed if (found := roof(row))}
    if sources:
        parts.append(f"fraction of the floor, by {' or '.join(sorted(sources))}\n\n" + pivot(_fraction))
    for pair in dict.fromkeys((ratio["of"], ratio["to"]) for row in timed for ratio in row["ratios"]):
        of = "time" if pair[0] == ours else f"time of {pair[0]}"
        parts.append(f"{of} / time of {pair[1]}\n\n" + pivot(to_peer(pair)))
    return "\n".join([*parts, *_absent(timed)])


def render_encoders(rows: Sequence[Row]) -> str:
    """Whole models on a GPU, a line each: replayed as one graph, and launched kernel by kernel, as a program does.
    Ratios are of times that were taken alike."""
    timed = [row for row in rows if "failed" not in row]
    pairs = list(dict.fromkeys((ratio["of"], ratio["to"]) for row in timed for ratio in row["ratios"]))
    names = list(dict.fromkeys(name for row in timed for name in row["seconds"])) or ["time"]
    ours = names[0]

    def is_replayed(row: Row, name: str) -> bool:
        return bool(row.get("how", {}).get(name) == "graph")

    def replayed(row: Row) -> list[str]:
        cells = [interval(row["seconds"][ours], 1e3) if is_replayed(row, ours) else ""]
        ratios = {(ratio["of"], ratio["to"]): ratio for ratio in row["ratios"]}
        for pair in pairs:
            cells.append(interval(ratios[pair]) if all(is_replayed(row, name) for name in pair) else "")
        return cells

    def launched(row: Row) -> list[str]:
        cells = []
        for name in names:
            if name not in row["seconds"]:
                cells.append("")
                continue
            one_call = is_replayed(row, name)
            seconds = row["call_seconds"][name] if one_call else row["seconds"][name]["median"]
            cells.append(f"{1e3 * seconds:.3g}")
        return cells

    def lines(cells: Callable[[Row], list[str]], columns: int) -> Iterable[list[str]]:
        for row in rows:
            case = row["case"]
            found = ["failed", *[""] * (columns - 1)] if "failed" in row else cells(row)
            yield [case["size"], f"{case['sentences']} x {case['layer']}", *found]

    columns = [ours, *(f"{'time' if of == ours else f'time of {of}'} / time of {to}" for of, to in pairs)]
    parts = [
        "replayed as a graph, ms and ratios\n\n"
        + table(["model", "sentences", *columns], lines(replayed, len(columns)), 2),
        "launched one by one, ms\n\n" + table(["model", "sentences", *names], lines(launched, len(names)), 2),
    ]
    return "\n".join([*parts, *_absent(timed)])


def render_models(result: Mapping[str, Any]) -> str:
    """Whole models: a line a candidate, a column a workload; milliseconds a batch, sentences a second, and scores."""
    rows = result["rows"]
    names = list(dict.fromkeys(name for row in rows for name in row["seconds"]))
    several = len({row["case"]["model"] for row in rows}) > 1

    def title(row: Row) -> str:
        return f"{row['case']['model']}, {row['case']['workload']}" if several else row["case"]["workload"]

    def lines(cell: Callable[[Row, str], str], shown: Sequence[Row]) -> str:
        body = ([name, *(cell(row, name) if name in row["seconds"] else "" for row in shown)] for name in names)
        return table(["", *map(title, shown)], body)

    parts = [
        "ms a batch\n\n" + lines(lambda row, name: _milliseconds(row["seconds"][name]), rows),
        "sentences a second\n\n" + lines(lambda row, name: f"{row['sentences_per_second'][name]:,.0f}", rows),
    ]
    if scored := [row for row in rows if "scores" in row]:
        what = f"{result['settings']['score']}, %"
        parts.append(f"{what}\n\n" + lines(lambda row, name: f"{100 * row['scores'][name]:.1f}", scored))
    return "\n".join([*parts, *_absent(rows)])


def _milliseconds(value: Mapping[str, float]) -> str:
    median, low, high = (
        f"{1e3 * value[end]:{',.0f' if value[end] >= 1 else '.3g'}}" for end in ("median", "low", "high")
    )
    return f"{median} [{low}, {high}]"


def render_worst(rows: Sequence[Row]) -> str:
    """How many cases are slower than the better of the others, and those with the largest ratios to it."""
    ordered = sorted(rows, key=lambda row: -float(to_better(row)["median"]))
    medians = [to_better(row)["median"] for row in ordered]
    over = sum(found > NOT_SLOWER for found in medians)
    said = f"{len(rows)} shapes: the median ratio is {median(medians):.2f}, {over} are above {NOT_SLOWER}. The largest:"
    lines = []
    for row in ordered[:WORST]:
        ours = next(iter(row["seconds"]))
        times = [interval(row["seconds"][name], 1e6) for name in (ours, row["better"])]
        lines.append([row["case"]["layer"], str(row["case"]["M"]), *times, row["better"], interval(to_better(row))])
    return f"{said}\n\n" + table(["layer", "M", "us", "us of the better other", "which", "ratio"], lines)


def to_better(row: Row) -> Row:
    found: Row = next(ratio for ratio in row["ratios"] if ratio["to"] == row["better"])
    return found


def _absent(rows: Sequence[Row]) -> Iterable[str]:
    """Why peers are missing from some cases, a line each."""
    reasons = Counter((name, why) for row in rows for name, why in row.get("absent", {}).items())
    return [f"Without {name} in {count} of {len(rows)}: {why}\n" for (name, why), count in reasons.items()]


def _fraction(row: Row) -> str:
    found = roof(row)
    return f"{found['fraction']:.2f} ({found['bound']})" if found else ""


def render(name: str, folder: Path | None = None, kind: str | None = None) -> str:
    """The results of that name, one machine after the other; of GPUs the one that was measured last.

    kind: of GPUs ("gpu") or CPUs ("cpu") alone.
    """
    parts = []
    results = read_results(name, folder, kind)
    older = _older_gpus(results)
    for result in (result for result in results if result not in older):
        rows = result["rows"]
        if "sentences_per_second" in rows[0]:
            body = render_models(result)
        elif "cells" in rows[0]:
            head = list(dict.fromkeys(column for row in rows for column in row["cells"]))
            body = table(head, ([row["cells"].get(column, "") for column in head] for row in rows))
        elif "better" in rows[0]:
            body = render_worst(rows)
        elif "sentences" in rows[0]["case"]:
            body = render_encoders(rows)
        else:
            body = render_kernel(rows) if "layer" in rows[0]["case"] else render_programs(rows)
        parts.append(f"{caption(result)}\n{body}")
    parts += [f"Not shown here, kept in bench/results: {caption(result)}" for result in older]
    return "\n".join(parts) or NO_RESULTS


def _older_gpus(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The results of GPUs, except for the last one that was measured: a page shows one GPU's numbers."""
    of_gpus = [result for result in results if "gpu" in (result.get("machine") or {})]
    return sorted(of_gpus, key=lambda result: str(result["date"]))[:-1]
