"""The quantizer with which transformers loads, saves and converts models with sparseq layers.

config.json of such a model names the method ("quantization_config": {"quant_method": "sparseq", ...}), and
`sparseq.registration` registers the quantizer when transformers is imported. transformers builds the plain model on the
meta device. The quantizer then checks the folder as `sparseq.load` does, replaces the layers, and sets the tensors once
transformers has placed the modules on their devices. Parameters that the class has and the file does not (a new head on
another model's encoder) are initialized and reported by transformers, as for any folder.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING, register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer

from sparseq.checkpoint import WEIGHTS, Folder, open_folder
from sparseq.checkpoint.files import is_weights
from sparseq.checkpoint.names import METHOD
from sparseq.errors import InputError
from sparseq.nn import Packed, convert, dequantize, named_layers
from sparseq.nn.save_pretrained import use_quantizer

from .config import SparseqConfig
from .saving import state_and_metadata

__all__ = ["SparseqQuantizer", "register"]


class SparseqQuantizer(HfQuantizer):
    """Loads and saves a model with sparseq layers, or converts a plain one while it is loaded.

    A folder: the result equals that of `sparseq.load` bit for bit. dtype: if it differs from the file's, the model is
    cast after loading, as `model.to(dtype)` does, and scales stay fp32. device_map: places whole modules on devices;
    offloading to the CPU or to disk is refused. A plain model, with `quantization_config=SparseqConfig(...)`: the
    result is that of `sparseq.convert`.

    Training layers can be trained, and `Trainer` refuses packed ones. `save_pretrained` writes what `sparseq.save`
    does, and `dequantize` gives plain layers (`sparseq.nn.dequantize`).

    Raises InputError for a folder that was changed, is damaged or was not written by sparseq, and for a class whose
    layers do not match the file's.
    """

    requires_calibration = False

    def __init__(self, quantization_config: SparseqConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self._folder: Folder | None = None
        self._packed = False

    @classmethod
    def of_model(cls, part: nn.Module, packed: bool) -> SparseqQuantizer | None:
        """The quantizer of a model that has sparseq layers already; None for a module that is no transformers model."""
        if not _is_of_transformers(part):
            return None
        made = cls(SparseqConfig())
        made._packed = packed
        return made

    def validate_environment(self, *args: Any, device_map: Any = None, **kwargs: Any) -> None:
        places = device_map.values() if isinstance(device_map, dict) else ()
        if "disk" in places:
            raise InputError(_NO_OFFLOAD)

    def param_needs_quantization(self, model: nn.Module, param_name: str, **kwargs: Any) -> bool:
        # Called if a tensor's shape differs from the parameter's. `_process_model_after_weight_loading` replaces the
        # tensor by one without the third axis.
        return self._folder is not None and self._folder.is_guarded(param_name)

    def _process_model_before_weight_loading(
        self, model: Any, checkpoint_files: list[str] | None = None, **kwargs: Any
    ) -> None:
        if not self.pre_quantized:
            return
        if not checkpoint_files or not all(is_weights(Path(file).name) for file in checkpoint_files):
            raise InputError(f"a model with sparseq layers is loaded from a folder with {WEIGHTS}, or shards of it")
        self._folder = folder = open_folder(Path(checkpoint_files[0]).parent).renamed(_names_in(model))
        folder.place_layers(model)
        self._dtype = model.config.dtype  # what was asked for, or what config.json says
        self._packed = any(isinstance(layer, Packed) for _, layer in named_layers(model))
        self._trainable = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        # transformers ties parameters by name, and a packed layer's weight is not a parameter. The file's ties are
        # restored below.
        parameters = dict(model.named_parameters(remove_duplicate=False))
        model.all_tied_weights_keys = {
            name: source
            for name, source in model.all_tied_weights_keys.items()
            if name in parameters and source in parameters
        }
        _add_patterns(model, "_keys_to_ignore_on_load_unexpected", folder.sentinels())
        _add_patterns(model, "_keys_to_ignore_on_load_missing", folder.aliases())

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        places = set(getattr(model, "hf_device_map", {}).values())
        if "disk" in places or ("cpu" in places and len(places) > 1):
            raise InputError(_NO_OFFLOAD)
        if not self.pre_quantized:
            convert(model, **self.quantization_config.settings)
            model.hf_quantizer = self  # in the place of the one that `convert` has made
            return model
        folder = self._folder
        assert folder is not None  # set before loading
        self._folder = None  # the tensors are the model's from here on
        folder.fill(model, self._trainable)
        if self._dtype is not None and self._dtype != folder.dtype:
            model.to(self._dtype)
        model.hf_quantizer = self
        return model

    def get_state_dict_and_metadata(self, model: nn.Module) -> tuple[dict[str, Tensor] | None, dict[str, str]]:
        return state_and_metadata(model)

    def is_serializable(self) -> bool:
        return True

    def _dequantize(self, model: Any, dtype: torch.dtype | str | None = None) -> Any:
        dequantize(model)
        for part in model.modules():
            if _is_of_transformers(part):
                self.remove_quantization_config(part)
        # `save_pretrained` leaves a name as the config's dtype, which is the default here.
        return model if dtype is None else model.to(getattr(torch, dtype) if isinstance(dtype, str) else dtype)

    @property
    def is_trainable(self) -> bool:
        return True  # with packed layers, adapters above and below them

    @property
    def is_qat_trainable(self) -> bool:
        return not self._packed


def register() -> None:
    """Registers the quantizer with transformers, for models that it loads and for those of `convert` and `pack`."""
    use_quantizer(SparseqQuantizer.of_model)
    if METHOD not in AUTO_QUANTIZER_MAPPING:
        register_quantization_config(METHOD)(SparseqConfig)
        register_quantizer(METHOD)(SparseqQuantizer)


_NO_OFFLOAD = (
    "the layers of sparseq are not offloaded: give a device_map that leaves no part of the model on the CPU beside a "
    "GPU, or on the disk"
)


def _is_of_transformers(module: nn.Module) -> bool:
    from transformers import PreTrainedModel  # is still being imported when this module is

    return isinstance(module, PreTrainedModel)


def _names_in(model: Any) -> Any:
    """The function that maps a name in the file to the model's name.

    It adds or removes the prefix of the base model, as transformers does when it loads a model with a head from an
    encoder's folder, and the reverse.
    """
    prefix = model.base_model_prefix
    inside = bool(prefix) and hasattr(model, prefix)

    def renamed(name: str) -> str:
        first, _, rest = name.partition(".")
        if prefix and first == prefix and not inside:
            return rest
        return f"{prefix}.{name}" if inside and not hasattr(model, first) else name

    return renamed


def _add_patterns(model: Any, attribute: str, names: list[str]) -> None:
    patterns = {f"^{re.escape(name)}$" for name in names}
    setattr(model, attribute, set(getattr(model, attribute) or ()) | patterns)
