"""The command line: `sparseq compress | evaluate | predict | size`, a module a command."""

from .entry import main

__all__ = ["main"]
