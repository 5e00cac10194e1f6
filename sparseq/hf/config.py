"""`SparseqConfig`: what `from_pretrained` of transformers is told to convert a model, or reads in config.json."""

from __future__ import annotations

import inspect
from typing import Any

from transformers.utils.quantization_config import QuantizationConfigMixin

from sparseq.checkpoint.names import METHOD
from sparseq.errors import InputError
from sparseq.nn import convert
from sparseq.nn.settings import QuantSettings
from sparseq_kernels import Pattern

__all__ = ["SparseqConfig"]

# The entries of config.json beside the method; what loading reads is in the header of the weights.
_OF_FOLDERS = ("version", "groups")
_SETTINGS = {name: parameter.default for name, parameter in inspect.signature(convert).parameters.items()
             if parameter.kind is parameter.KEYWORD_ONLY}  # fmt: skip


class SparseqConfig(QuantizationConfigMixin):
    """How `from_pretrained` converts a model after loading it: the keyword arguments of `sparseq.convert`.

    The model is trainable, like the result of `convert`; `sparseq.pack` makes the form for inference. Raises InputError
    for an unknown setting and for a value out of range.

    config.json of a folder with sparseq layers has such an entry too, without settings: "version" of the format, and
    "groups" of layers with equal settings, for readers. All that loading needs is in the header of the weights.
    """

    def __init__(self, quant_method: str = METHOD, **settings: Any) -> None:
        self.quant_method = METHOD
        self.of_folder = {name: settings.pop(name) for name in _OF_FOLDERS if name in settings}
        for name in settings:
            if name not in _SETTINGS:
                raise InputError(f"SparseqConfig has no setting {name!r}: the settings are {', '.join(_SETTINGS)}")
        self.settings = settings
        found = {**_SETTINGS, **settings}
        QuantSettings(found["bits"], found["activation"], found["scale"])
        Pattern.parse(found["pattern"]).check_sparsity(found["sparsity"])

    def to_dict(self) -> dict[str, Any]:
        """The entry of config.json."""
        return {"quant_method": self.quant_method, **self.of_folder, **self.settings}
