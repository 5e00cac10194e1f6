"""Names of the last release, which warn and will go in the next one."""

import warnings
from typing import Any

from torch import Tensor

from .registry import OPS


def call(op: str, *args: Any) -> Tensor:
    """The first result of an op by name. Use the typed functions, such as `sparseq_kernels.int8_linear`."""
    instead = f"sparseq_kernels.{op}" if not op.endswith("_backward") else f"torch.ops.sparseq.{op}"
    warnings.warn(
        f"sparseq_kernels.call({op!r}, ...) will go in the next release: use {instead}(...)",
        DeprecationWarning,
        stacklevel=2,
    )
    result = OPS[op](*args)  # type: ignore[operator]
    return result if isinstance(result, Tensor) else result[0]


class Repeated:
    """Calls of an op with the same weights. Repeated calls of the typed functions themselves are as fast now."""

    def __init__(self) -> None:
        warnings.warn(
            "sparseq_kernels.Repeated will go in the next release: call the typed functions, which are as fast",
            DeprecationWarning,
            stacklevel=2,
        )

    def __call__(self, op: str, x: Tensor, *constants: Any) -> Tensor:
        """The (first) result of op(x, *constants)."""
        result = OPS[op](x, *constants)  # type: ignore[operator]
        return result if isinstance(result, Tensor) else result[0]
