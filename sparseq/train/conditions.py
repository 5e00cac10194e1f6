"""The conditions of a run: everything except its settings and its data that can change its numbers."""

import torch
import transformers

import sparseq
from sparseq_kernels import backend

from . import hardware


def current(precision: str, *, ops: bool) -> dict[str, str]:
    """The conditions that affect rounding in a run here, by name; the same run under others can give other numbers.

    precision: of the arithmetic. ops: whether sparseq's own ops are used; then their backend is included.
    """
    found = {
        "threads": str(torch.get_num_threads()),
        "processor": hardware.processor(),
        "precision": precision,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "sparseq": sparseq.__version__,
    }
    return {**found, "backend": backend(hardware.device().type)} if ops else found
