"""The command `python -m sparseq.demo`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sparseq.errors import InputError
from sparseq.extras import require
from sparseq.terminal import Parser, say, say_error

from .recipes import SIZES

EXTRA = "train"


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="sparseq.demo", description="Compress a real BERT on this machine.")
    parser.add_argument("--size", choices=SIZES, default="full", help="full (the default), or ci: the same in small")
    parser.add_argument("--out", type=Path, help="folder for the runs (default: runs/demo-SIZE)")
    try:
        arguments = parser.parse_args(argv)
        require(EXTRA)
        _show(arguments.size, (arguments.out or Path("runs") / f"demo-{arguments.size}").resolve())
    except InputError as error:
        say_error(error)
        return 2
    except KeyboardInterrupt:
        say("sparseq: interrupted; the same command continues from the last checkpoint", error=True)
        return 130
    return 0


def _show(size: str, folder: Path) -> None:
    """Runs the demo of this size in the folder, and prints what it came to."""
    from sparseq.train.progress import Reporter, SafeConsole

    from .comparison import bars, comparison_table, verdict
    from .run import TITLE, run

    rows, paired = run(size, folder, Reporter())
    shown = os.path.relpath(folder)
    program = os.path.relpath(Path(sys.executable).with_name("sparseq"))
    console = SafeConsole()
    console.print("")
    console.print(comparison_table(rows, TITLE))
    console.print(bars(rows))
    console.print(f"\n{verdict(rows, paired)}")
    console.print(f"Figure: {shown}/demo.png   Numbers: {shown}/results.json")
    console.print(f'Try it: {program} predict {shown}/compressed "a charming, funny film"')


if __name__ == "__main__":
    sys.exit(main())
