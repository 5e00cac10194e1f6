"""The tensors and the header of the file of a model, in memory: what every writer of such a file has in common."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from sparseq.errors import InputError
from sparseq.nn import check_finite

from .checksum import checksum
from .config import digest
from .header import LARGEST_HEADER, encode
from .names import CHECKSUM
from .state import Contents

__all__ = ["serialized"]


def serialized(
    model: nn.Module, held: Contents, config: bytes | None, extra: Mapping[str, str] | None = None
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(the tensors by their names in the file, the text entries of the header with the checksum).

    held: the `contents` of the model. config: the content of config.json, if there is one. extra: further entries.

    Raises InputError for a tensor without values, for NaN or infinity in a parameter or a sparseq layer, and for a
    header that would be too long to be read.
    """
    for name, tensor in held.tensors.items():
        if tensor.is_meta:
            raise InputError(f"{name} is on the meta device and has no values to save; load the model first")
    check_finite(model)
    header = held.metadata(extra, None if config is None else digest(config))
    if len(encode(held.stored(), header)) > LARGEST_HEADER:
        raise InputError(f"the file's header would be longer than {LARGEST_HEADER:,} bytes, which load() refuses")
    tensors = _independent(held.stored())
    header[CHECKSUM] = checksum(header, sorted(tensors.items()))
    return tensors, header


def _independent(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors that share no storage (which safetensors refuses), copied only if necessary."""
    result: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        # Conjugate and negative views differ from the content of their memory.
        tensor = tensor.cpu().resolve_conj().resolve_neg().contiguous()
        if tensor.untyped_storage().data_ptr() in storages and tensor.numel():
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        result[name] = tensor
    return result
