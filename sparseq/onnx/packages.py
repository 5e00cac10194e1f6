"""The optional packages, imported where they are needed."""

from importlib import import_module
from typing import Any

from sparseq.errors import InputError
from sparseq.extras import install

EXTRA = install("onnx")


def needed(name: str, purpose: str) -> Any:
    """The package. Raises InputError, beginning with the purpose, if it is not installed."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(f"{purpose} needs {error.name or name}, which is not installed: {EXTRA}") from None
