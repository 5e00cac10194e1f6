"""The conditions of a run: what changes its numbers beside its settings and its data."""

import torch
import transformers

import sparseq
from sparseq_kernels import backend

from . import hardware


def current(precision: str, *, ops: bool) -> dict[str, str]:
    """What rounds the sums of a run here beside its settings and its data, by name: the same run under others can end
    with other numbers. precision: of the arithmetic. ops: whether sparseq's own are used, which have backends."""
    found = {
        "threads": str(torch.get_num_threads()),
        "processor": hardware.processor(),
        "precision": precision,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "sparseq": sparseq.__version__,
    }
    return {**found, "backend": backend(hardware.device().type)} if ops else found
