"""Publishes a study: its results as data without paths of this machine, and its report among the docs.

python -m bench.studies.published runs/minilm    writes bench/results/studies/NAME.json and docs/results/NAME/
python -m bench.studies.published --check        exits with 1 if a report is not what its results say
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.common import RESULTS, ROOT, commit
from bench.program import run_program
from sparseq.study.folder import StudyFolder
from sparseq.study.records import StudyResults
from sparseq.study.report import write_report
from sparseq.terminal import say
from sparseq.train.durable import write_whole
from sparseq.train.recipe import PATH_SETTINGS

STUDIES = RESULTS / "studies"
REPORTS = ROOT / "docs" / "results"
# The limits of the recommended recipe, in points and MB: what a tenth of MiniLM-L6 takes.
LIMITS = {"max_drop": 1.5, "max_mb": 9.1}
# Figures differ with the version of matplotlib; the numbers in them are in the text and the tables.
_COMPARED = (".md", ".csv")


def without_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a recipe with their own names, in capitals, in the place of paths."""
    return {
        name: name.upper() if name in PATH_SETTINGS and isinstance(value, str) and "/" in value else value
        for name, value in settings.items()
    }


def published(results: StudyResults, note: str | None = None) -> StudyResults:
    """The results without paths of this machine, with the commit at which they are published, and a note."""
    records = tuple(dataclasses.replace(one, recipe=without_paths(one.recipe)) for one in results.records)
    return dataclasses.replace(
        results,
        records=records,
        common=without_paths(results.common),
        conditions={**results.conditions, "published at commit": commit(), **({"note": note} if note else {})},
    )


def write(results: StudyResults, folder: Path) -> None:
    """Writes the report into the folder, without the data, which are in STUDIES, and without what was there before."""
    for before in (*folder.glob("tables/*"), *folder.glob("figures/*")):
        before.unlink()
    write_report(results, folder, interpolate=True, **LIMITS).results.unlink()


def stale(results: StudyResults, folder: Path) -> list[str]:
    """The files of the report that differ from what the results say."""
    with tempfile.TemporaryDirectory() as made:
        write(results, Path(made))
        wanted = {path.relative_to(made): path for path in Path(made).rglob("*") if path.suffix in _COMPARED}
        there = {path.relative_to(folder) for path in folder.rglob("*") if path.suffix in _COMPARED}
        return sorted(
            str(name)
            for name in wanted.keys() | there
            if name not in there or name not in wanted or (folder / name).read_bytes() != wanted[name].read_bytes()
        )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Publishes the results and the report of a study.")
    parser.add_argument("study", nargs="?", type=Path, help="folder of the study; none renders the published results")
    parser.add_argument("--note", help="what a reader of its conditions has to know")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a report is stale")
    given = parser.parse_args(argv)
    if given.study is not None:
        results = published(StudyFolder(given.study).results(), given.note)
        STUDIES.mkdir(parents=True, exist_ok=True)
        write_whole(STUDIES / f"{results.name}.json", results.as_json())
    found = 0
    for file in sorted(STUDIES.glob("*.json")):
        results, folder = StudyResults.from_file(file), REPORTS / file.stem
        if not given.check:
            write(results, folder)
            say(f"{file.name}: {folder / 'report.md'}")
        for name in stale(results, folder) if given.check else ():
            say(f"{folder / name} is not what {file} says: run python -m bench.studies.published", error=True)
            found = 1
    return found


if __name__ == "__main__":
    run_program(main)
