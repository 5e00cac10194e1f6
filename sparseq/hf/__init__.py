"""sparseq inside Hugging Face transformers: loading and saving by `from_pretrained` and `save_pretrained`.

Importing `sparseq` registers the quantizer as soon as transformers is imported. `SparseqConfig` converts a model while
it is loaded::

    from sparseq.hf import SparseqConfig

    config = SparseqConfig(bits=8, sparsity=0.6, pattern="4x4")
    model = AutoModelForSequenceClassification.from_pretrained(name, quantization_config=config)
"""

from .config import SparseqConfig
from .quantizer import SparseqQuantizer, register

__all__ = ["SparseqConfig", "SparseqQuantizer", "register"]

register()
