"""Encoders of packed models that run as a composition of few ops, instead of layer by layer.

`families` says where the parts of each architecture are, `weights` reads them, `watch` sees when they change, `encoder`
computes with them, `padding` leaves padding out, `calls` reads the arguments of a call, and `model` puts it all into a
model of transformers.
"""

from .families import FAMILIES
from .model import FusedEncoder, fuse, fused_reason, use_fused_encoder

__all__ = ["FAMILIES", "FusedEncoder", "fuse", "fused_reason", "use_fused_encoder"]
