"""sparseq inside Hugging Face transformers: loading and saving by `from_pretrained` and `save_pretrained`.

Importing `sparseq` registers the quantizer as soon as transformers is imported. `SparseqConfig` converts a model while
it is loaded::

    from sparseq.hf import SparseqConfig

    config = SparseqConfig(bits=8, sparsity=0.6, pattern="4x4")
    model = AutoModelForSequenceClassification.from_pretrained(name, quantization_config=config)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sparseq.extras import naming_extra

with naming_extra("hf"):
    from .config import SparseqConfig
    from .quantizer import SparseqQuantizer, register

if TYPE_CHECKING:
    from .callbacks import PruningCallback, QATCallback
    from .distillation import Distillation, DistillationMixin, DistillationTrainer, ParameterGroupsMixin

__all__ = [
    "Distillation",
    "DistillationMixin",
    "DistillationTrainer",
    "ParameterGroupsMixin",
    "PruningCallback",
    "QATCallback",
    "SparseqConfig",
    "SparseqQuantizer",
    "register",
]

# Imported on first use: transformers imports this package while it is being imported itself, and its trainer is not
# needed by those who load and predict.
_HOMES = {
    "sparseq.hf.callbacks": ("PruningCallback", "QATCallback"),
    "sparseq.hf.distillation": ("Distillation", "DistillationMixin", "DistillationTrainer", "ParameterGroupsMixin"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            with naming_extra("train"):
                return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register()
