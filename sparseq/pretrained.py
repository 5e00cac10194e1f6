"""The quantizer with which `from_pretrained` of transformers loads folders written by `sparseq.save`.

`config.json` of a model with sparseq layers names it ("quantization_config": {"quant_method": "sparseq"}), and
`sparseq.registration` registers it when transformers is imported. transformers builds the plain model on the meta
device. The quantizer then checks the folder as `sparseq.load` does, replaces the layers, and sets the tensors once
transformers has placed the modules on their devices. Parameters that the class has and the file does not (a new head on
another model's encoder) are initialized and reported by transformers, as for any folder.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import nn
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING, register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from sparseq.checkpoint import WEIGHTS, Folder, open_folder
from sparseq.checkpoint.names import METHOD
from sparseq.errors import InputError
from sparseq.nn import Packed, named_layers

__all__ = ["SparseqConfig", "SparseqQuantizer", "register"]


class SparseqConfig(QuantizationConfigMixin):
    """The entry of config.json that names sparseq as the quantization method.

    All settings are in the header of the weights.
    """

    def __init__(self, quant_method: str = METHOD, **unknown: Any) -> None:
        if unknown:
            raise InputError(
                f"quantization_config has {next(iter(unknown))!r}, which sparseq does not know: convert and pack a "
                "model by sparseq.convert and sparseq.pack after loading it"
            )
        self.quant_method = METHOD


class SparseqQuantizer(HfQuantizer):
    """Loads a model with sparseq layers; the result equals that of `sparseq.load` bit for bit.

    dtype: if it differs from the file's, the model is cast after loading, as `model.to(dtype)` does. device_map: places
    whole modules on devices; offloading to the CPU or to disk is refused. A model with training layers is like the
    result of `sparseq.convert`: it can be trained and saved in the usual ways. A model with packed layers can only be
    saved by `sparseq.save`.

    Raises InputError for a folder that was changed, is damaged or was not written by `sparseq.save`, and for a class
    whose layers do not match the file's.
    """

    requires_calibration = True  # the model must have been converted and packed before

    def __init__(self, quantization_config: SparseqConfig, **kwargs: Any) -> None:
        if not kwargs.get("pre_quantized", True):
            raise InputError(
                "sparseq quantizes a model that is loaded already: leave quantization_config out, then call "
                "sparseq.convert(model), train or calibrate it, and sparseq.pack(model)"
            )
        super().__init__(quantization_config, **kwargs)
        self._folder: Folder | None = None
        self._packed = False

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
        if not checkpoint_files or len(checkpoint_files) != 1 or Path(checkpoint_files[0]).name != WEIGHTS:
            raise InputError(f"a model with sparseq layers is loaded from a folder with one {WEIGHTS}")
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
        folder = self._folder
        assert folder is not None  # set before loading
        self._folder = None  # the tensors are the model's from here on
        places = set(getattr(model, "hf_device_map", {}).values())
        if "disk" in places or ("cpu" in places and len(places) > 1):
            raise InputError(_NO_OFFLOAD)
        folder.fill(model, self._trainable)
        if self._dtype is not None and self._dtype != folder.dtype:
            model.to(self._dtype)
        if self._packed:
            model.hf_quantizer = self
        else:
            self.remove_quantization_config(model)
            for module in model.modules():
                if hasattr(module, "config"):
                    module.config._is_quantized = False
        return model

    def is_serializable(self) -> bool:
        raise InputError("a model with packed layers is saved by sparseq.save(model, folder), not by save_pretrained")

    @property
    def is_trainable(self) -> bool:
        return True  # with packed layers, adapters above and below them

    @property
    def is_qat_trainable(self) -> bool:
        return not self._packed


def register() -> None:
    """Registers the quantizer with transformers; does nothing if it is registered already."""
    if METHOD not in AUTO_QUANTIZER_MAPPING:
        register_quantization_config(METHOD)(SparseqConfig)
        register_quantizer(METHOD)(SparseqQuantizer)


_NO_OFFLOAD = (
    "the layers of sparseq are not offloaded: give a device_map that leaves no part of the model on the CPU beside a "
    "GPU, or on the disk"
)


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
