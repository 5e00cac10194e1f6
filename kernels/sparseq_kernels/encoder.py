"""What a BERT encoder is made of: the layers that `cpu.encoder` runs in one call."""

from dataclasses import dataclass

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
