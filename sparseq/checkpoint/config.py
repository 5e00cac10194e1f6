"""`config.json`: written with the model, and checked before a model is built from it.

transformers builds what a config says, whatever it costs and wherever its code comes from; so its size, nesting,
numbers and names are bounded first, and what building takes of memory and time is bounded by the tensors in the file.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from sparseq.errors import InputError
from sparseq_kernels.untrusted import FLOAT_DTYPES, shown

from .header import Header
from .layout import Layout
from .names import CONFIG, METHOD, PREVIOUS, QUANTIZATION, STAGING
from .untrusted_files import read_text, reason, strict_json

__all__ = ["build", "check_values", "config_text", "digest", "read_config", "verify_config"]

LARGEST_CONFIG = 16 * 2**20
_DEEPEST = 16
# Of any integer, and of one that says how many layers, labels and the like a config makes lists of. Rotary bases and
# the longest contexts come to 10 million.
_LARGEST, _MOST = 2**24, 2**16
_COUNTS = re.compile(r"(^|_)(layers?|labels|blocks|stages|experts|groups|copies)$")
# Entries with which transformers would fetch code or weights, or would run what a hub holds.
_REFUSED = re.compile(
    r"auto_map|trust_remote_code|custom_pipelines|kernel_config|use_kernels|_?(attn|experts)_implementation(_internal)?"
)
# Floating-point entries, and what they may be from and to.
_RANGES = {
    re.compile(r"(^|_)eps(ilon)?$"): (0.0, 0.1),
    re.compile(r"(^|_)(dropout|prob|dropout_prob|dropout_rate|drop_path_rate|pdrop|layerdrop)$"): (0.0, 1.0),
    re.compile(r"(^|_)(initializer_range|init_std)$"): (0.0, 1e4),
}
# While a model is built: bytes and calls of torch, for each byte that its tensors have in fp32 and for each tensor, and
# in any case. A model makes small buffers of its own, causal masks and frequencies, and little else.
_BYTES_PER_BYTE, _BYTES_ANYWAY = 8, 2**27
_CALLS_PER_TENSOR, _CALLS_ANYWAY = 64, 4096


def config_text(model: Any, architecture: str, quantized: bool) -> str:
    """What `save` writes as config.json. quantized: whether the model has sparseq layers, which transformers then
    leaves to `sparseq.pretrained`. InputError: a config that `load` would refuse."""
    config = copy.deepcopy(model.config)
    if hasattr(config, QUANTIZATION):
        delattr(config, QUANTIZATION)
    if quantized:
        setattr(config, QUANTIZATION, {"quant_method": METHOD})
    config.architectures = [architecture]
    config.dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), config.dtype)
    written = json.loads(_json(config))
    # A name that transformers leaves out for its default value would be read as another's, should the default change.
    written |= {name: value for name, value in json.loads(_json(_parsed(type(config), written))).items()
                if name not in written}  # fmt: skip
    check_values(written, "the model's config")
    return json.dumps(written, indent=2, sort_keys=True) + "\n"


def digest(text: bytes) -> str:
    """Hex sha256."""
    return hashlib.sha256(text).hexdigest()


def read_config(folder: Path, layout: Layout) -> dict[str, Any]:
    """The checked values of the folder's config.json. InputError: it is missing, altered since `save` wrote it (in
    format 1 the checksum does not cover it), or says what no config does."""
    text = _text(folder, layout)
    config = strict_json(text, str(folder / CONFIG))
    check_values(config, str(folder / CONFIG))
    if config.get("architectures") not in (None, [layout.architecture]):
        raise InputError(
            f"{folder / CONFIG} is of {shown(config['architectures'])}, and the model is a {layout.architecture}; "
            "save the model again"
        )
    return dict(config)


def verify_config(folder: Path, layout: Layout) -> None:
    """InputError unless config.json is as `save` wrote it."""
    if layout.config is not None:
        _text(folder, layout)


def check_values(config: Any, where: str) -> None:
    """InputError unless a config has the form of one: nesting, numbers and names within bounds."""
    if not isinstance(config, dict):
        raise InputError(f"{where} is {shown(config)}, and must be an object")
    for name, value, depth in _nodes(config):
        what = f"{where}: {name!a}"
        if depth > _DEEPEST:
            raise InputError(f"{where} is nested deeper than {_DEEPEST} levels")
        if _REFUSED.fullmatch(name) or (name in ("use_pretrained_backbone", "use_timm_backbone") and value):
            raise InputError(f"{what} is refused: it makes transformers fetch or run what is not in the folder")
        if type(value) is int and abs(value) > (_MOST if _COUNTS.search(name) else _LARGEST):
            raise InputError(f"{what} is {shown(value)}, more than any model has")
        if name in ("dtype", "torch_dtype") and value not in (None, *FLOAT_DTYPES):
            raise InputError(f"{what} is {shown(value)}, and must be one of {', '.join(FLOAT_DTYPES)}")
        for pattern, (low, high) in _RANGES.items():
            if type(value) in (int, float) and pattern.search(name) and not low <= value <= high:
                raise InputError(f"{what} is {shown(value)}, and must be from {low:g} to {high:g}")


def build(config: Mapping[str, Any], layout: Layout, header: Header, folder: Path) -> nn.Module:
    """The untrained model that transformers makes of the config; parameters are allocated, not initialised.

    On the CPU, in fp32 but where the class says otherwise. InputError: no such class in transformers (nothing is ever
    fetched), values that it refuses, or a model much larger than the tensors in the file.
    """
    try:
        import transformers
        from transformers.initialization import no_init_weights
    except ImportError as error:
        raise InputError(f"loading {folder} needs transformers: pip install 'sparseq[train]'") from error
    kind = _class(layout.architecture, transformers)
    where, wanted = folder / CONFIG, kind.config_class.model_type
    if config.get("model_type") != wanted:
        raise InputError(
            f"{where}: model_type is {shown(config.get('model_type'))}, and that of {layout.architecture} is {wanted}"
        )
    own = sum(entry.numel for entry in header.entries.values()) + layout.weights
    budget = _Budget(_BYTES_PER_BYTE * 4 * own + _BYTES_ANYWAY, _CALLS_PER_TENSOR * len(layout.origin) + _CALLS_ANYWAY)
    default = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float32)
        # The layers are put in afterwards, and `save` names them anew.
        parsed = _parsed(kind.config_class, {name: value for name, value in config.items() if name != QUANTIZATION})
        if config.get("transformers_version") == transformers.__version__:
            lost = [name for name in json.loads(_json(parsed)) if name not in config]
            if lost:
                raise InputError(f"{lost[0]!a} is missing")
        # On the CPU, not the meta device: non-persistent buffers (position ids) get their values, and pages of
        # parameters that nothing touches cost nothing.
        with torch.device("cpu"), budget, no_init_weights():
            model: nn.Module = kind(parsed)
    except Exception as error:  # whatever transformers raises for it, the file is at fault
        why = f" ({reason(error)})" if isinstance(error, InputError) else ""
        raise InputError(f"{where} cannot be read as {layout.architecture}'s{why}; save the model again") from error
    finally:
        torch.set_default_dtype(default)
    return model


class _Budget(TorchDispatchMode):
    """Refuses what would take more bytes or calls than `size` and `calls`, before it is taken."""

    def __init__(self, size: int, calls: int) -> None:
        super().__init__()
        self.size, self.calls = size, calls

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.calls -= 1
        self.size -= _size(func, args, kwargs)
        if self.size < 0 or self.calls < 0:
            raise InputError("it describes a model that is larger than the tensors in the file")
        return func(*args, **kwargs)


def _size(func: Any, args: Any, kwargs: Any) -> int:
    """Bytes of what the call returns, found without making it."""
    if func._schema.is_mutable or func.is_view:
        return 0
    to_meta = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs))
    try:
        results = func(*to_meta[0], **({**to_meta[1], "device": "meta"} if "device" in kwargs else to_meta[1]))
    except (RuntimeError, NotImplementedError):
        return 0  # what has no form before its values are known, such as a number taken out of a tensor
    results = results if isinstance(results, tuple | list) else (results,)
    return sum(result.nbytes for result in results if isinstance(result, Tensor))


def _class(architecture: str | None, transformers: Any) -> Any:
    """The class of transformers with exactly this name, among those that an instance can have."""
    kind: Any = getattr(transformers, architecture or "", None)
    of_a_model = isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
    named_so = of_a_model and kind.__name__ == architecture and kind.__module__.startswith("transformers.models.")
    if not named_so or not getattr(kind.config_class, "model_type", ""):
        raise InputError(
            f"transformers {transformers.__version__} has no {architecture}; pass load() the model to fill"
        )
    return kind


def _parsed(kind: Any, config: Mapping[str, Any]) -> Any:
    return kind.from_dict(copy.deepcopy(dict(config)))


def _json(config: Any) -> str:
    return str(config.to_json_string())


def _text(folder: Path, layout: Layout) -> bytes:
    """config.json, unparsed, if it is the one that the layout knows."""
    try:
        text = read_text(folder / CONFIG, LARGEST_CONFIG)
    except InputError:
        if layout.config is None:
            raise
        text = b""
    if layout.config is None or digest(text) == layout.config:
        return text
    # A `save` that was killed between moving the two files has left the config that belongs to the old weights.
    previous = folder / STAGING / PREVIOUS
    if previous.is_file() and not previous.parent.is_symlink():
        kept = read_text(previous, LARGEST_CONFIG)
        if digest(kept) == layout.config:
            return kept
    raise InputError(
        f"{folder / CONFIG} was altered after it was saved (sha256 mismatch) or is missing; save the model again"
    )


def _nodes(config: Mapping[str, Any]) -> Iterator[tuple[str, Any, int]]:
    """(name, value, depth) of everything inside, lists' items under the name of their list."""
    waiting: list[tuple[str, Any, int]] = [(name, value, 1) for name, value in config.items()]
    while waiting:
        name, value, depth = waiting.pop()
        yield name, value, depth
        if depth > _DEEPEST:
            continue
        if isinstance(value, dict):
            waiting += [(key, item, depth + 1) for key, item in value.items()]
        elif isinstance(value, list):
            waiting += [(name, item, depth + 1) for item in value]
