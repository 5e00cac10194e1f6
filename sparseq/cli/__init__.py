"""The command line: `sparseq compress | evaluate | predict | size`, one module per command."""

from .entry import main

__all__ = ["main"]
