"""Renders result files as Markdown tables into the pages of PAGES, between their markers.

    python -m bench.tables            rewrites the tables
    python -m bench.tables --check    exits with 1 if the page is not what the results say

A marker names a result: `<!-- table: qat_step -->` ... `<!-- end -->`. What is between them is the renderer's.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.common import RESULTS, ROOT, read_results
from sparseq.terminal import shown

PAGES = (*(ROOT / "docs" / f"{name}.md" for name in ("benchmarks", "kernels", "gpu")), ROOT / "README.md")
_MARKED = re.compile(r"(?P<open><!-- table: (?P<name>[\w-]+) -->\n)(?P<body>.*?)(?P<close><!-- end -->)", re.DOTALL)
_OPENING = re.compile(r"<!-- table:")
NO_RESULTS = "No results yet.\n"
Row = Mapping[str, Any]


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
    return f"{machine['cpu']}, {cores} ({', '.join(units)}); torch {versions['torch']}; {taken}"


def coverage(settings: Mapping[str, Any]) -> str:
    """How much of what could be compiled a result of the compile check has: all, or what was chosen of it."""
    if settings["compiled"] == settings["variants"]:
        return f"Everything, {settings['variants']:,} variants"
    kinds = ["the smallest set"] if settings["smallest"] else []
    kinds += [f"only {' and '.join(settings[name])}" for name in ("arch", "kernel") if settings[name]]
    part = f"{settings['compiled']:,} of {settings['variants']:,} variants"
    return f"**Not everything**: {part} ({', '.join(kinds)})"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
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
    if any("datasheet" in row.get("floor", ()) for row in timed):
        parts.append("fraction of the floor that the datasheet sets\n\n" + pivot(_fraction))
    for pair in dict.fromkeys((ratio["of"], ratio["to"]) for row in timed for ratio in row["ratios"]):
        of = "time" if pair[0] == ours else f"time of {pair[0]}"
        parts.append(f"{of} / time of {pair[1]}\n\n" + pivot(to_peer(pair)))
    return "\n".join([*parts, *_absent(timed)])


def _absent(rows: Sequence[Row]) -> Iterable[str]:
    """Why peers are missing from some cases, a line each."""
    reasons = Counter((name, why) for row in rows for name, why in row.get("absent", {}).items())
    return [f"Without {name} in {count} of {len(rows)}: {why}\n" for (name, why), count in reasons.items()]


def _fraction(row: Row) -> str:
    sheet = row.get("floor", {}).get("datasheet")
    return f"{sheet['fraction']:.2f} ({sheet['bound']})" if sheet else ""


def render(name: str, folder: Path | None = None) -> str:
    """All results of that name, a machine after the other; for "goals" how a GPU's results compare with what was aimed
    at."""
    if name == "goals":
        from bench.summary import goals, newest

        last = newest(folder or RESULTS)
        return f"{caption(last)}\n{goals(folder or RESULTS)}" if last else NO_RESULTS
    parts = []
    results = read_results(name, folder)
    older = _older_gpus(results)
    for result in (result for result in results if result not in older):
        rows = result["rows"]
        if "cells" in rows[0]:
            head = list(dict.fromkeys(column for row in rows for column in row["cells"]))
            body = table(head, ([row["cells"].get(column, "") for column in head] for row in rows))
        else:
            body = render_kernel(rows) if "layer" in rows[0]["case"] else render_programs(rows)
        parts.append(f"{caption(result)}\n{body}")
    parts += [f"Not shown here, kept in bench/results: {caption(result)}" for result in older]
    return "\n".join(parts) or NO_RESULTS


def _older_gpus(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those of GPUs, but for the last one that was taken: a page shows one GPU's numbers."""
    of_gpus = [result for result in results if "gpu" in (result.get("machine") or {})]
    return sorted(of_gpus, key=lambda result: str(result["date"]))[:-1]


def filled(page: str, folder: Path | None = None) -> str:
    """The page with every marked table as the results say. ValueError for a marker that is not closed."""
    if len(_OPENING.findall(page)) != len(_MARKED.findall(page)):
        raise ValueError("a '<!-- table: name -->' marker has no '<!-- end -->' after it, or no plain name in it")
    return _MARKED.sub(lambda m: f"{m['open']}\n{render(m['name'], folder)}\n{m['close']}", page)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Renders bench/results into the tables of the docs.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a page is stale")
    parser.add_argument("--page", type=Path, action="append", help="a Markdown file (default: all that have tables)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of result files")
    given = parser.parse_args(argv)
    return max(_update(page, given.results, given.check) for page in given.page or PAGES)


def _update(page: Path, results: Path, check: bool) -> int:
    try:
        before = page.read_text(encoding="utf-8")
        after = filled(before, results)
    except (OSError, ValueError) as error:
        print(shown(f"{page}: {error}"), file=sys.stderr)
        return 2
    if check:
        if before != after:
            print(f"{page} is not what {results} says: run python -m bench.tables", file=sys.stderr)
        return int(before != after)
    page.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
