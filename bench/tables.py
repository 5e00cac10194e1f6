"""Writes the tables of the pages in PAGES, between their markers, from the result files.

    python -m bench.tables            rewrites the tables
    python -m bench.tables --check    exits with 1 if a page differs from what the results say

A marker names a result: `<!-- table: qat_step -->` ... `<!-- end -->`. The text between the markers is generated. The
names "goals" and "model_goals" stand for the comparison of a GPU's results, and of whole models', with the goals;
"best_models", "alternatives" and those that begin with "budgets" for tables of studies.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from bench.alternatives import alternatives
from bench.best_models import best_models
from bench.budgets import TABLES as BUDGETS
from bench.budgets import budgets
from bench.common import RESULTS, ROOT
from bench.frontier import picture_of
from bench.goals import goals, newest
from bench.model_goals import model_goals
from bench.program import run_program
from bench.render import NO_RESULTS, caption, render
from sparseq.terminal import shown

_RESULTS = ROOT / "docs" / "results"
PAGES = (
    *(_RESULTS / f"{name}.md" for name in ("benchmarks", "compile", "cpu", "gpu")),
    *(ROOT / "docs" / "how-to" / f"{name}.md" for name in ("onnx", "stored-bytes", "which-combination")),
    ROOT / "README.md",
)
# Pages that show one kind of machine.
KINDS = {"cpu.md": "cpu", "gpu.md": "gpu"}
_OF_STUDIES: dict[str, Callable[[], str]] = {
    "best_models": best_models,
    "alternatives": alternatives,
    **{name: partial(budgets, name) for name in BUDGETS},
}
_MARKED = re.compile(r"(?P<open><!-- table: (?P<name>[\w-]+) -->\n)(?P<body>.*?)(?P<close><!-- end -->)", re.DOTALL)
_OPENING = re.compile(r"<!-- table:")


def filled(page: str, folder: Path | None = None, kind: str | None = None) -> str:
    """The page with every marked table as the results of that kind of machine say. ValueError for a marker that is not
    closed."""
    if len(_OPENING.findall(page)) != len(_MARKED.findall(page)):
        raise ValueError("a '<!-- table: name -->' marker has no '<!-- end -->' after it, or no plain name in it")
    return _MARKED.sub(lambda m: f"{m['open']}\n{_rendered(m['name'], folder, kind)}\n{m['close']}", page)


def _rendered(name: str, folder: Path | None, kind: str | None) -> str:
    if name == "model_goals":
        return model_goals(folder)
    if name in _OF_STUDIES:
        return _OF_STUDIES[name]()
    if name != "goals":
        return "\n".join([render(name, folder, kind), *_pictures(name, folder)])
    last = newest(folder or RESULTS)
    return f"{caption(last)}\n{goals(folder or RESULTS)}" if last else NO_RESULTS


def _pictures(name: str, folder: Path | None) -> Iterator[str]:
    """The figures of that name's results, for a page in docs/results."""
    for file in sorted((folder or RESULTS).glob(f"{name}-*.json")):
        if (picture := picture_of(file)).exists():
            yield f"![{file.stem}: score and latency of each candidate](../images/{picture.name})\n"


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
        after = filled(before, results, KINDS.get(page.name))
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
    run_program(main)
