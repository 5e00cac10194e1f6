"""What a BERT encoder is made of: the embeddings and layers that `cpu.embeddings` and `cpu.encoder` compute."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class EncoderLinear:
    """y = act(x weight^T + bias), with x quantized to int8, by row or by one static scale.

    weight: int8 [N, K]. weight_scale: fp32 [N]. bias: fp32 [N] or None. input_scale: fp32, one value, or None for one a
    row. activation: "none", "relu" or "gelu".
    """

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor | None
    input_scale: Tensor | None = None
    activation: str = "none"


@dataclass(frozen=True)
class EncoderNorm:
    """LayerNorm over the last dimension. weight, bias: fp32 [H]. eps: added to the variance."""

    weight: Tensor
    bias: Tensor
    eps: float


@dataclass(frozen=True)
class EncoderLayer:
    """A layer with LayerNorm after each residual sum (Vaswani et al. 2017; BERT's).

    qkv: [3 H, H], the query's rows first, then the key's, then the value's. out: [H, H]. up: [I, H], with the
    activation. down: [H, I].
    """

    qkv: EncoderLinear
    out: EncoderLinear
    attention_norm: EncoderNorm
    up: EncoderLinear
    down: EncoderLinear
    output_norm: EncoderNorm


@dataclass(frozen=True)
class EmbeddingTable:
    """Rows to look up: integers with a scale for each row, fp32 [rows], or fp32 [rows, E] and None.

    Integers are int8 [rows, E], or of 4 bits, uint8 [rows, ceil(E / 2)], as `pack_int4` makes them.
    """

    values: Tensor
    scale: Tensor | None = None

    @property
    def bits(self) -> int:
        """Of a value: 32, 8 or 4."""
        if self.scale is None:
            return 32
        return 4 if self.values.dtype == torch.uint8 else 8


@dataclass(frozen=True)
class EncoderEmbeddings:
    """norm(word[id] + token_type[type] + position[number]), added in this order.

    padding_idx: None where tokens are numbered from 0. Otherwise they are numbered from padding_idx + 1, without those
    whose id is padding_idx: their number is padding_idx (RoBERTa).
    """

    word: EmbeddingTable
    position: EmbeddingTable
    token_type: EmbeddingTable | None
    norm: EncoderNorm
    padding_idx: int | None = None
