"""`InputError`, as `sparseq` code imports it."""

from sparseq_kernels.errors import InputError

__all__ = ["InputError"]
