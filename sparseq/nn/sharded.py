"""Weights that FSDP2 (`fully_shard`) or tensor parallelism has sharded: DTensors, of which a process has a part."""

import sys
from typing import Any

from torch import Tensor

__all__ = ["gathered", "is_sharded", "local_parts"]


def is_sharded(tensor: Any) -> bool:
    """Whether this is a DTensor."""
    # Looked up only if it was imported, which it was if there is one: importing it takes time.
    distributed = sys.modules.get("torch.distributed.tensor")
    return distributed is not None and isinstance(tensor, distributed.DTensor)


def gathered(tensor: Tensor) -> Tensor:
    """The whole tensor, the same in every process; each must call this. A plain tensor is returned as it is."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def local_parts(weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """(this process's part of the weight, the same part of its whole mask); both as they are for a plain weight."""
    if not is_sharded(weight):
        return weight, mask
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = weight
    # Every process has the whole mask, so nothing has to be sent.
    part = distribute_tensor(mask, sharded.device_mesh, sharded.placements, src_data_rank=None)
    return sharded.detach().to_local(), part.to_local()
