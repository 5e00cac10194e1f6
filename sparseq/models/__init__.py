"""The six BERT sizes with their parameter counts in closed form, and pretrained encoders with a classification head.

Sizes and counts do not need transformers; `config_for` and `load_model` import it when they are called.
"""

from .cutting import keep_layers
from .loading import load_model, load_tokenizer
from .sizes import BERT_VOCABULARY, SIZES, ParameterCounts, SizeSpec, config_for, count

__all__ = [
    "BERT_VOCABULARY",
    "SIZES",
    "ParameterCounts",
    "SizeSpec",
    "config_for",
    "count",
    "keep_layers",
    "load_model",
    "load_tokenizer",
]
