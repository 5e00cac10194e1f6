"""Moving and casting the tensors of a packed layer: integers and scales keep their dtype, and ties are kept."""

from collections.abc import Callable, MutableMapping
from typing import NamedTuple
from weakref import ref

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from sparseq_kernels.torch_internals import has_compatible_shallow_copy_type

Change = Callable[[Tensor], Tensor]
_AS_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


class _Carried(NamedTuple):
    """The tensor that another one was turned into (weakly referenced), and the versions of both at that time."""

    result: "ref[Tensor]"
    versions: tuple[int, int]


# `nn.Module._apply` changes the buffers of one module at a time, which would duplicate a buffer that two modules share.
_carried: MutableMapping[Tensor, _Carried] = WeakTensorKeyDictionary()


def carry(tensor: Tensor, change: Change, keep_dtype: bool) -> Tensor:
    """Returns change(tensor), as for `nn.Module._apply`; layers that share a tensor get the same result.

    keep_dtype: apply everything but the change of dtype.
    """
    if isinstance(tensor, nn.Parameter):
        # Tied to another module's, which is changed in place there, too.
        with torch.no_grad():
            changed = change(tensor)
            if has_compatible_shallow_copy_type(tensor, changed):
                tensor.data = changed
                return tensor
            return nn.Parameter(changed, tensor.requires_grad)
    before = _carried.get(tensor)
    if before is not None and (known := before.result()) is not None:
        like = _changed(tensor.new_empty(0), change, keep_dtype)
        same = (type(like), like.device, like.dtype) == (type(known), known.device, known.dtype)
        if same and before.versions == (_version(tensor), _version(known)):
            return known
    result = _changed(tensor, change, keep_dtype)
    if result is not tensor:
        _carried[tensor] = _Carried(ref(result), (_version(tensor), _version(result)))
    return result


def _changed(tensor: Tensor, change: Change, keep_dtype: bool) -> Tensor:
    if not keep_dtype:
        return change(tensor)
    # Casts leave integers alone, so the values are passed as integers.
    integers = tensor.view(_AS_INTEGERS[tensor.element_size()]) if tensor.is_floating_point() else tensor
    changed = change(integers)
    if changed is integers:
        return tensor
    if changed.dtype != integers.dtype:  # `nn.Module.type` casts integers too.
        changed = integers.to(changed.device)
    return changed.view(tensor.dtype) if tensor.is_floating_point() else changed


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version
