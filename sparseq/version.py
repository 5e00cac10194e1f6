"""The version of sparseq."""

__version__ = "0.1.0"
