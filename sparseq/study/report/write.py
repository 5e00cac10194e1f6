"""`write_report`: the report of a study as files in a folder."""

from dataclasses import dataclass
from pathlib import Path

from sparseq.errors import InputError
from sparseq.failures import writing
from sparseq.paths import check_new_folder, expanded
from sparseq.study.records import TOLERANCE, StudyResults
from sparseq.train.durable import write_whole
from sparseq_kernels.untrusted import quoted

from .configurations import Configurations
from .recommend import Limits
from .render import FIGURES, TABLES, html, markdown
from .sections import sections
from .style import require

PAGE, MARKDOWN, RESULTS = "index.html", "report.md", "results.json"


@dataclass(frozen=True)
class ReportFiles:
    """The files of a report. results: the study's results, as JSON. figures: each as PNG and SVG. tables: CSV."""

    page: Path
    markdown: Path
    results: Path
    figures: tuple[Path, ...]
    tables: tuple[Path, ...]


def write_report(
    results: StudyResults,
    folder: str | Path,
    *,
    tolerance: float = TOLERANCE,
    interpolate: bool = False,
    max_drop: float | None = None,
    max_ms: float | None = None,
    max_mb: float | None = None,
    batch: int = 1,
    by_validation: bool = False,
) -> ReportFiles:
    """Writes `index.html`, which needs no other file, `report.md`, and each figure and table as a file; `results.json`.

    The same results give the same files. Everything is computed before the first file is written, each file is written
    completely or not at all, and the page last.

    Args:
        results: of the study; cells may be missing or have failed.
        folder: is created if it does not exist.
        tolerance: of the score, a fraction: how far below the plain model a smaller model's score may be.
        interpolate: between sizes, for the ratios; see `sparseq.study.report.reduction.crossing`.
        max_drop, max_ms, max_mb, batch, by_validation: of the recommended recipe; see `Limits`.

    Raises:
        InputError: if no cell is finished, for a tolerance or a limit that is no number of at least 0, a folder that
            cannot be used, or without matplotlib and jinja2.
        MachineError: if a file cannot be written.
    """
    limits = Limits(max_drop, max_ms, max_mb, batch, by_validation)
    for name, value in (("tolerance", tolerance), ("max_drop", max_drop), ("max_ms", max_ms), ("max_mb", max_mb)):
        if value is not None and not 0 <= value < float("inf"):
            raise InputError(f"{name} is {quoted(value)}: give a number of at least 0")
    target = check_new_folder(expanded(folder), "the report's folder")
    require()
    study = Configurations(results)
    found = sections(study, tolerance, interpolate, limits)
    title = f"Study {results.name}"
    page, text = html(title, found), markdown(title, found)

    files: dict[Path, str | bytes] = {}
    for section in found:
        for figure in section.figures:
            files[target / FIGURES / f"{figure.name}.png"] = figure.png
            files[target / FIGURES / f"{figure.name}.svg"] = figure.svg
    figures = tuple(files)
    tables = {target / TABLES / f"{table.name}.csv": table.as_csv() for part in found for table in part.tables}
    files.update(tables)
    with writing(target):
        for name in (FIGURES, TABLES):
            (target / name).mkdir(parents=True, exist_ok=True)
    whole = {target / RESULTS: results.as_json(), target / MARKDOWN: text, target / PAGE: page}
    for path, content in {**files, **whole}.items():
        write_whole(path, content)
    return ReportFiles(target / PAGE, target / MARKDOWN, target / RESULTS, figures, tuple(tables))
