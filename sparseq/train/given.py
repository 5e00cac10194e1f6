"""What a program gives to a run besides its recipe: rows that it already has, and a metric of its own."""

import importlib
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sparseq.errors import InputError
from sparseq.reading import brief
from sparseq_kernels.untrusted import quoted

if TYPE_CHECKING:
    from sparseq.tasks.metrics import Metric


@dataclass(frozen=True)
class Given:
    """train, validation: rows (see `sparseq.tasks.in_memory.table_of`). metric: see `sparseq.tasks.metrics.Metric`.
    data: all splits at once, a `datasets.DatasetDict` or a dict of rows."""

    train: Any = None
    validation: Any = None
    metric: "Metric | None" = None
    data: Any = None

    @property
    def rows(self) -> bool:
        """Whether training rows are among it, so that a recipe needs to name neither a task nor a file."""
        return self.train is not None or self.data is not None


def named_function(name: str | None) -> Any:
    """The function that `MODULE:FUNCTION` names, from an installed module or one of the current folder; None of None.

    This runs the module. So the name must come from the user, and never from a file that was found somewhere.

    Raises InputError if there is no such module or function, or if the module cannot be imported.
    """
    if name is None:
        return None
    module, _, function = name.partition(":")
    if not module or not function:
        raise InputError(f"--metric wants MODULE:FUNCTION, such as sklearn.metrics:f1_score, not {quoted(name)}")
    path = list(sys.path)
    sys.path.append(os.getcwd())  # at the end: a file there does not stand in for an installed module
    try:
        found = importlib.import_module(module)
    except Exception as error:
        raise InputError(
            f"--metric {quoted(name)} cannot be imported ({type(error).__name__}: {brief(error)})"
        ) from error
    finally:
        sys.path[:] = path
    if not callable(getattr(found, function, None)):
        raise InputError(f"--metric {quoted(name)}: module {quoted(module)} has no function {quoted(function)}")
    return getattr(found, function)
