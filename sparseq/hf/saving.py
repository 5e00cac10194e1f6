"""What transformers' `save_pretrained` writes for a model with sparseq layers: the same as `sparseq.save`."""

from __future__ import annotations

import json
from typing import Any

from torch import Tensor, nn

from sparseq.checkpoint.config import as_json, config_text, prepare_config
from sparseq.checkpoint.serialize import serialized
from sparseq.checkpoint.state import contents
from sparseq.errors import InputError
from sparseq.nn.unwrap import unwrapped

__all__ = ["state_and_metadata"]


def state_and_metadata(model: Any) -> tuple[dict[str, Tensor] | None, dict[str, str]]:
    """(tensors by their names in the file, the header's text entries), for `HfQuantizer.get_state_dict_and_metadata`.

    transformers writes the config and the tensors itself, in shards if they are large. Each shard has this header, with
    the checksum of config.json and of all tensors, so exactly those must be written. (None, {}) for adapters on the
    model, which are saved without it.

    Raises InputError for a config that transformers does not write as `sparseq.save` does, for tensors that its class
    leaves out, and for what `sparseq.save` refuses.
    """
    if getattr(model, "_hf_peft_config_loaded", False):
        return None, {}
    inner: nn.Module = unwrapped(model)
    held = contents(inner)
    _check_all_saved(inner, held.tensors)
    ours = config_text(inner, held)
    config: Any = inner.config
    prepare_config(config, held)
    config.dtype = json.loads(ours)["dtype"]
    theirs = as_json(config)
    if theirs != ours:
        different = _different(json.loads(ours), json.loads(theirs))
        raise InputError(
            f"save_pretrained would not keep {different!r} of the model's config: save the model by sparseq.save"
        )
    return serialized(inner, held, ours.encode())


def _check_all_saved(model: Any, tensors: dict[str, Tensor]) -> None:
    for name in getattr(model, "_keys_to_ignore_on_save", None) or ():
        if name in tensors:
            raise InputError(f"save_pretrained leaves {name!r} out for this class: save the model by sparseq.save")


def _different(one: dict[str, Any], other: dict[str, Any]) -> str:
    return next(name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name))
