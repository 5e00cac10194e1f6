"""Building a model with transformers from an untrusted config.

The memory and time for building are limited by the tensors in the file, and nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparseq.errors import InputError
from sparseq.extras import install
from sparseq.reading import brief
from sparseq_kernels.torch_internals import TorchDispatchMode, tree_map_only
from sparseq_kernels.untrusted import quoted

from .architecture import model_class
from .config import as_json, parsed
from .header import Header
from .layout import Layout
from .names import CONFIG, QUANTIZATION

__all__ = ["build"]

# Limits while a model is built: bytes per byte of its tensors in fp32, tensor-creating calls per tensor, and the least
# values of both. Besides its tensors a model makes only small buffers, such as causal masks and frequencies.
_BYTES_PER_BYTE, _BYTES_ANYWAY = 8, 2**27
_CALLS_PER_TENSOR, _CALLS_ANYWAY = 8, 512


def build(config: Mapping[str, Any], layout: Layout, header: Header, folder: Path) -> nn.Module:
    """Builds the untrained model of the config with transformers; parameters are allocated, not initialised.

    The model is on the CPU, in fp32 except where its class specifies otherwise. Raises InputError if transformers has
    no such class (nothing is ever downloaded), if it refuses the values, or if the model is much larger than the
    tensors in the file.
    """
    try:
        import transformers
        from transformers.initialization import no_init_weights
    except ImportError as error:
        raise InputError(f"loading {folder} needs transformers: {install('hf')}") from error
    kind = model_class(layout.architecture)
    where, wanted = folder / CONFIG, kind.config_class.model_type
    if config.get("model_type") != wanted:
        raise InputError(
            f"{where}: model_type is {quoted(config.get('model_type'))}, and that of {layout.architecture} is {wanted}"
        )
    own = sum(entry.numel for entry in header.entries.values()) + layout.weights
    budget = _Budget(_BYTES_PER_BYTE * 4 * own + _BYTES_ANYWAY, _CALLS_PER_TENSOR * len(layout.origin) + _CALLS_ANYWAY)
    try:
        # The layers are put in afterwards, and `save` writes this entry again.
        values = parsed(kind.config_class, {name: value for name, value in config.items() if name != QUANTIZATION})
        if config.get("transformers_version") == transformers.__version__:
            lost = [name for name in json.loads(as_json(values)) if name not in config]
            if lost:
                raise InputError(f"{quoted(lost[0])} is missing")
        # On the CPU, not the meta device: non-persistent buffers (position ids) get their values, and pages of
        # parameters that nothing touches cost nothing.
        with torch.device("cpu"), _in_fp32(), budget, no_init_weights():
            model: nn.Module = kind(values)
    except Exception as error:  # whatever transformers raises here, the file is the cause
        why = f" ({brief(error)})" if isinstance(error, InputError) else ""
        raise InputError(f"{where} cannot be read as {layout.architecture}'s{why}; save the model again") from error
    return model


@contextlib.contextmanager
def _in_fp32() -> Iterator[None]:
    """Builds with fp32 as the default dtype, so that buffers that are not stored are as when the model was made."""
    default = torch.get_default_dtype()
    if default == torch.float32:
        yield
        return
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(default)


class _Budget(TorchDispatchMode):
    """Refuses allocations and calls beyond `size` bytes and `calls` calls, before they are made."""

    def __init__(self, size: int, calls: int) -> None:
        super().__init__()
        self.size, self.calls = size, calls

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not func._schema.is_mutable and not func.is_view:
            self.calls -= 1
            self.size -= _size(func, args, kwargs)
        if self.size < 0 or self.calls < 0:
            raise InputError("it describes a model that is larger than the tensors in the file")
        return func(*args, **kwargs)


def _size(func: Any, args: Any, kwargs: Any) -> int:
    """The size in bytes of what the call would return, determined without making it."""
    if func is torch.ops.aten.empty.memory_format:  # a parameter, as nearly all are
        return math.prod(args[0]) * (kwargs.get("dtype") or torch.get_default_dtype()).itemsize
    to_meta = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (args, kwargs))
    try:
        results = func(*to_meta[0], **({**to_meta[1], "device": "meta"} if "device" in kwargs else to_meta[1]))
    except (RuntimeError, NotImplementedError):
        return 0  # its shape depends on values, for example a number taken from a tensor
    results = results if isinstance(results, tuple | list) else (results,)
    return sum(result.nbytes for result in results if isinstance(result, Tensor))
