"""The command `python -m sparseq.demo`."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sparseq.errors import InputError
from sparseq.terminal import Parser, say, say_error
from sparseq.train.progress import Reporter, SafeConsole

from .comparison import bars, comparison_table, verdict
from .recipes import SIZES
from .run import TITLE, run


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="sparseq.demo", description="Compress a real BERT on this machine.")
    parser.add_argument("--size", choices=SIZES, default="full", help="full (the default), or ci: the same in small")
    parser.add_argument("--out", type=Path, help="folder for the runs (default: runs/demo-SIZE)")
    reporter = Reporter()
    try:
        arguments = parser.parse_args(argv)
        folder = (arguments.out or Path("runs") / f"demo-{arguments.size}").resolve()
        rows, paired = run(arguments.size, folder, reporter)
    except InputError as error:
        say_error(error)
        return 2
    except KeyboardInterrupt:
        say("sparseq: interrupted; the same command continues from the last checkpoint", error=True)
        return 130
    shown = os.path.relpath(folder)
    program = os.path.relpath(Path(sys.executable).with_name("sparseq"))
    console = SafeConsole()
    console.print("")
    console.print(comparison_table(rows, TITLE))
    console.print(bars(rows))
    console.print(f"\n{verdict(rows, paired)}")
    console.print(f"Figure: {shown}/demo.png   Numbers: {shown}/results.json")
    console.print(f'Try it: {program} predict {shown}/compressed "a charming, funny film"')
    return 0


if __name__ == "__main__":
    sys.exit(main())
