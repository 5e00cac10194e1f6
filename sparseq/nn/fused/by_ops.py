"""The layers of an encoder as a composition of few ops, in which each activation is quantized once: on any device."""

import torch
import torch.nn.functional as F
from torch import Tensor

from sparseq_kernels import int8_linear, layer_norm_quantize_rows
from sparseq_kernels.encoder import EncoderLinear, EncoderNorm

from .padding import Padding
from .weights import EncoderWeights, LayerWeights


def encode_by_ops(
    weights: EncoderWeights, hidden: Tensor, mask: Tensor | None, padding: Padding | None, *, every: bool = False
) -> list[Tensor]:
    """The output of the last layer, or with `every` what enters the first layer and the output of each one.

    Args:
        weights: of all layers.
        hidden: [B, L, H], in the weights' dtype.
        mask: for `scaled_dot_product_attention`, broadcastable to [B, heads, L, L]; with padding left out, of its
            `columns` instead of L.
        padding: what to leave out.
    """
    batch, length = hidden.shape[:2]
    y = hidden.reshape(batch * length, -1) if padding is None else padding.gather(hidden)

    def whole(rows: Tensor) -> Tensor:
        return rows.view(batch, length, -1) if padding is None else padding.restore(rows)

    found = [hidden] if every else []
    x, scale = y, None
    for number, layer in enumerate(weights.layers):
        heads = _projected(layer, x, scale, y)
        attended = _attention(weights, heads, mask, padding, (batch, length))
        out = _multiply(layer.attended, attended, weights.dtype)
        x, scale, y = _normalized(out, y, layer.attended_norm, (layer.intermediate,))
        out = _feed_forward(layer, x, scale, weights.dtype)
        following = weights.layers[number + 1].projections if number + 1 < len(weights.layers) else ()
        x, scale, y = _normalized(out, y, layer.output_norm, following)
        if every:
            found.append(whole(y))
    return found if every else [whole(y)]


def _multiply(product: EncoderLinear, x: Tensor, dtype: torch.dtype, scale: Tensor | None = None) -> Tensor:
    """[T, K] -> [T, N] in `dtype`. scale: of x's rows, if x is quantized already."""
    return int8_linear(
        x,
        product.weight,
        product.weight_scale,
        product.bias,
        product.input_scale if scale is None else scale,
        product.activation,
        dtype,
    )


def _projected(layer: LayerWeights, x: Tensor, scale: Tensor | None, y: Tensor) -> Tensor:
    """[T, 3H]: query, key and value of each row. x, scale: y quantized by row, or y and None."""
    if len(layer.projections) == 1:
        return _multiply(layer.projections[0], x, y.dtype, scale)
    return torch.cat([_multiply(one, y, y.dtype) for one in layer.projections], dim=-1)


def _attention(
    weights: EncoderWeights, projected: Tensor, mask: Tensor | None, padding: Padding | None, shape: tuple[int, int]
) -> Tensor:
    """[T, 3H] -> [T, H]."""
    batch, length = shape if padding is None else (padding.batch, padding.columns)
    if padding is not None:
        projected = padding.spread(projected)
    heads = projected.view(batch, length, 3, weights.heads, weights.head_size).permute(2, 0, 3, 1, 4)
    query, key, value = heads.unbind()
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    attended = attended.transpose(1, 2).reshape(batch * length, -1)
    return attended if padding is None else padding.collect(attended)


def _feed_forward(layer: LayerWeights, x: Tensor, scale: Tensor | None, dtype: torch.dtype) -> Tensor:
    """[T, H] -> [T, H]. scale: of x's rows, if x is quantized already."""
    inner = _multiply(layer.intermediate, x, dtype, scale)
    return _multiply(layer.output, inner, dtype)


def _normalized(
    x: Tensor, residual: Tensor, norm: EncoderNorm, following: tuple[EncoderLinear, ...]
) -> tuple[Tensor, Tensor | None, Tensor]:
    """(q, its scales by row, y) for y = LayerNorm(x + residual); (y, None, y) if the products that follow take y.

    They do where there is none, or not one alone, and where the input has a static scale.
    """
    if len(following) == 1 and following[0].input_scale is None:
        return layer_norm_quantize_rows(x, residual, norm.weight, norm.bias, norm.eps)
    y = F.layer_norm(x + residual, norm.weight.shape, norm.weight, norm.bias, norm.eps)
    return y, None, y
