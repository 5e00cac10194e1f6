"""Encoders of packed models that run in one call of native code or as a composition of few ops, not layer by layer.

`families` says where the parts of each architecture are, `weights`, `embeddings` and `pooler` read them, `watch` sees
when they change, `reading` keeps what was read until then. `encoder` computes with it (`one_call` or `by_ops`),
`padding` leaves padding out, `calls` reads the arguments of a call, `outputs` makes its result, and `model` puts it all
into a model of transformers. `ways` says which way a call takes, and why.
"""

from .families import FAMILIES
from .model import FusedEncoder, fuse, unfuse
from .ways import FusedWay, fused_reason, fused_way, use_fused_encoder

__all__ = ["FAMILIES", "FusedEncoder", "FusedWay", "fuse", "fused_reason", "fused_way", "unfuse", "use_fused_encoder"]
