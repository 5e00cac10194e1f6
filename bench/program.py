"""How a benchmark that runs as a program ends."""

from collections.abc import Callable
from typing import NoReturn

from bench.check import WrongResultError
from sparseq.errors import InputError, MachineError
from sparseq.terminal import say_error


def run_program(main: Callable[[], int]) -> NoReturn:
    """Ends the process as `main` says. A fault of the input or the machine is one sentence, and the exit status 2; a
    wrong result, 1; an interruption, 130."""
    try:
        raise SystemExit(main())
    except (InputError, MachineError) as error:
        say_error(error)
        raise SystemExit(2) from None
    except WrongResultError as error:
        say_error(error)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
