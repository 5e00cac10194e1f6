"""`sparseq study`: `run` and `report`."""

import argparse
from pathlib import Path
from typing import Any

from sparseq.errors import InputError
from sparseq.extras import require
from sparseq.study.options import KEEP, Options
from sparseq.study.records import TOLERANCE
from sparseq.terminal import counted, say, say_json
from sparseq.train.recipe import Recipe

from .exits import FAILED, INTERRUPTED

EXTRA, REPORT_EXTRA = "train", "study"
HELP = "run a grid of compressions, and report on them"
EXAMPLES = """\
examples:
  what a study would do, and how long it would take:
    sparseq study run study.toml --out runs/study --dry-run
  run it, two cells at once; given again, the same command does only what is missing:
    sparseq study run study.toml --out runs/study --jobs 2
  its tables and figures, and the best recipe for a budget:
    sparseq study report runs/study --max-drop 0.5 --max-ms 5 --max-mb 20"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "sparseq study {run,report} ..."
    actions = parser.add_subparsers(prog="sparseq study", metavar="{run,report}", required=True)
    run_ = actions.add_parser(
        "run",
        help="run the cells of a study that are missing",
        description="Run the cells of a study that are missing.",
    )
    run_.add_argument("study", metavar="FILE", help="the study: a .toml file of sizes, tasks and grids of settings")
    run_.add_argument("--out", required=True, metavar="DIR", help="folder of the study")
    run_.add_argument("--jobs", type=_count, default=1, metavar="N", help="runs beside each other (default: 1)")
    run_.add_argument(
        "--threads",
        type=_count,
        metavar="N",
        help="threads of each run (default: the processors shared among the jobs)",
    )
    run_.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="run the cells on the Ray cluster there (local: one on this machine) instead of in --jobs processes here",
    )
    run_.add_argument(
        "--gpus", type=_share, default=0.0, metavar="N", help="GPUs of each run on the cluster; 0.5 for two runs on one"
    )
    run_.add_argument(
        "--keep",
        choices=KEEP,
        default="all",
        help="metrics removes the models of finished cells once they are timed, but not those that other cells need "
        "(default: all)",
    )
    run_.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only cells whose name matches, such as 'sst2-*', and what they need",
    )
    run_.add_argument(
        "--grid", action="append", default=[], metavar="NAME", help="only cells of this grid (several times)"
    )
    run_.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="changes",
        help="a common setting instead of the file's, such as data_dir=glue",
    )
    run_.add_argument(
        "--timing",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="time finished cells beside their teacher (default: yes)",
    )
    run_.add_argument(
        "--dry-run", action="store_true", help="list the cells with their estimated time and size, and write nothing"
    )
    run_.add_argument("--quiet", action="store_true", help="no progress on stderr")
    run_.add_argument("--json", action="store_true", help="the result as one JSON object on stdout")
    run_.set_defaults(action=_run)
    report = actions.add_parser(
        "report",
        help="write the tables and figures of a study",
        description="Write the tables and figures of a study: one page, and each table and figure as a file.",
    )
    report.add_argument("study", metavar="DIR", help="folder of a study, or a file of its results")
    report.add_argument("--out", metavar="FOLDER", help="where to write (default: DIR/report)")
    report.add_argument("--grid", action="append", default=[], metavar="NAME", help="only of this grid (several times)")
    report.add_argument(
        "--tolerance",
        type=float,
        default=100 * TOLERANCE,
        metavar="POINTS",
        help="how many points a smaller model may lose in the table of size reductions (default: %(default)s)",
    )
    report.add_argument(
        "--interpolate", action="store_true", help="between neighbouring sizes, in the logarithm of the size"
    )
    report.add_argument(
        "--max-drop", type=float, metavar="POINTS", help="recommend a recipe that loses at most this to the teacher"
    )
    report.add_argument("--max-ms", type=float, metavar="MS", help="and takes at most so long for a text")
    report.add_argument("--max-mb", type=float, metavar="MB", help="and is stored in at most so much")
    report.add_argument(
        "--batch", type=_count, default=1, metavar="N", help="of --max-ms: a batch size that was timed (default: 1)"
    )
    report.add_argument(
        "--by-validation",
        action="store_true",
        help="choose by the validation rows, which the scores are reported on, if no training rows were held out",
    )
    report.set_defaults(action=_report)


def run(arguments: argparse.Namespace) -> int:
    return int(arguments.action(arguments))


def _run(arguments: argparse.Namespace) -> int:
    changes = _changes(arguments.changes)
    require(EXTRA)
    from sparseq.study.run import plan_study, run_study
    from sparseq.study.summary import show_plan, show_summary

    options = Options(
        jobs=arguments.jobs,
        threads=arguments.threads,
        ray=arguments.ray,
        gpus=arguments.gpus,
        keep=arguments.keep,
        only=tuple(arguments.only),
        grids=tuple(arguments.grid),
        time=arguments.timing,
    )
    if arguments.dry_run:
        planned = plan_study(arguments.study, arguments.out, options, changes)
        if arguments.json:
            say_json(planned.as_dict())
        else:
            show_plan(planned, options)
        return 0
    try:
        summary, results = run_study(arguments.study, arguments.out, options, changes, silent=arguments.quiet)
    except KeyboardInterrupt:
        say("sparseq: interrupted; the same command goes on with what is missing", error=True)
        return INTERRUPTED
    if arguments.json:
        say_json(summary.as_dict(len(results.records)))
    else:
        show_summary(summary, results, arguments.out)
    return FAILED if summary.failed else 0


def _report(arguments: argparse.Namespace) -> int:
    require(REPORT_EXTRA)
    from sparseq.study.folder import REPORT, StudyFolder
    from sparseq.study.records import StudyResults
    from sparseq.study.report import write_report

    path = Path(arguments.study)
    is_folder = path.is_dir() or not path.exists()
    results = StudyFolder(path).results() if is_folder else StudyResults.from_file(path)
    if arguments.out is None and not is_folder:
        raise InputError(f"{path} is a file of results: say with --out which folder the report belongs into")
    if arguments.grid:
        results = results.of_grids(arguments.grid)
    files = write_report(
        results,
        arguments.out or path / REPORT,
        tolerance=arguments.tolerance / 100,
        interpolate=arguments.interpolate,
        max_drop=arguments.max_drop,
        max_ms=arguments.max_ms,
        max_mb=arguments.max_mb,
        batch=arguments.batch,
        by_validation=arguments.by_validation,
    )
    done = sum(record.done for record in results.records)
    say(f"{results.name}: {done:,} of {len(results.records):,} cells done")
    for what, place in (
        ("the page", files.page),
        ("the same as text", files.markdown),
        ("the results as data", files.results),
        (counted(len(files.figures), "figure"), files.figures[0].parent if files.figures else None),
        (counted(len(files.tables), "table"), files.tables[0].parent if files.tables else None),
    ):
        if place is not None:
            say(f"  {what}: {place}")
    return 0


def _count(raw: str) -> int:
    try:
        value = int(raw)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"wants a whole number of at least 1, not {raw!r}")
    return value


def _share(raw: str) -> float:
    try:
        value = float(raw)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"wants a number of at least 0, not {raw!r}")
    return value


def _changes(given: list[str]) -> dict[str, Any]:
    """The settings of --set, parsed. Raises InputError for an unknown one and for a value that it does not take."""
    known, found = Recipe.settings(), {}
    for text in given:
        name, sign, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not sign or name not in known or name == "out":
            raise InputError(f"--set {text} names no setting of a recipe: write it as --set data_dir=glue")
        found[name] = known[name].value(name, value)
    return found
