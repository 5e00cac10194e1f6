"""Keeps libraries from writing what the run says itself."""

import logging
import warnings
from types import ModuleType

from sparseq_kernels.on_import import after_import


def quiet_libraries() -> None:
    """Reduces the messages of transformers, datasets and torch to errors; the run reports its own progress."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    after_import("datasets", _quiet_datasets)  # which predictions do without
    for name in ("accelerate", "torch.distributed", "torch.nn.parallel.distributed", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(transformers|accelerate|torch|datasets)\b")
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(transformers|accelerate|torch)\b")


def _quiet_datasets(datasets: ModuleType) -> None:
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
