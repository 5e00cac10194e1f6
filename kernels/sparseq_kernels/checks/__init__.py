"""What an op's arguments must be, by themselves and to one another, checked once for every backend before any of them
takes a pointer: native code and kernels trust what they get.

`CHECKS` looks at types, devices, dtypes, shapes and numbers, and runs where shapes are faked, too. `CONTENTS` reads the
values of index tensors (columns, offsets, indices). It runs for tensors on a CPU alone, where reading costs little next
to the op. On a GPU it would wait for the device at every call; there the values are checked where they are made
(`formats`, `block_index.BlockIndex`), and kernels read nothing through an index that they did not compare.
"""

from collections.abc import Callable
from typing import Any

from ..schemas import SCHEMAS
from . import inference, training
from .arguments import check_classes, check_tensors
from .contents import CONTENTS

_SPECIFIC: dict[str, Callable[..., None]] = {
    "quantize_rows": training.quantize_rows,
    "layer_norm_quantize_rows": inference.layer_norm_quantize_rows,
    "gelu_quantize_rows": inference.gelu_quantize_rows,
    "fake_quant": training.fake_quant,
    "fake_quant_backward": training.fake_quant_backward,
    "qat_linear": training.qat_linear,
    "qat_linear_backward": training.qat_linear_backward,
    "int8_linear": inference.int8_linear,
    "block_sparse_int8_linear": inference.block_sparse_int8_linear,
    "bitmask_int8_linear": inference.bitmask_int8_linear,
    "semi_structured_int8_linear": inference.semi_structured_int8_linear,
    "int8_linear_backward": inference.int8_linear_backward,
    "int8_embedding": inference.int8_embedding,
    "masked_linear": training.masked_linear,
    "masked_linear_backward": training.masked_linear_backward,
    "magnitude_mask": training.magnitude_mask,
}


def _check(op: str) -> Callable[..., None]:
    specific, tensors = _SPECIFIC[op], check_tensors(op)

    def check(*args: Any) -> None:
        tensors(args)
        specific(*args)

    return check


CHECKS = {op: _check(op) for op in SCHEMAS}

__all__ = ["CHECKS", "CONTENTS", "check_classes"]
