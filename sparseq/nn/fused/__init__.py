"""Encoders of packed models that run in one call of native code or as a composition of few ops, not layer by layer.

`families` says where the parts of each architecture are, `weights` reads them, `watch` sees when they change, `encoder`
computes with them (`one_call` or `by_ops`), `padding` leaves padding out, `calls` reads the arguments of a call, and
`model` puts it all into a model of transformers.
"""

from .families import FAMILIES
from .model import FusedEncoder, fuse, fused_reason, use_fused_encoder

__all__ = ["FAMILIES", "FusedEncoder", "fuse", "fused_reason", "use_fused_encoder"]
