"""What an op's arguments must be to one another, checked once for every backend: native code trusts its pointers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .errors import InputError
from .reference.int8_linear import ACTIVATIONS
from .reference.sparse_int8_linear import CHUNK
from .tiles import layout


def _same_device(op: str, tensors: Sequence[Tensor | None]) -> None:
    first = next(t for t in tensors if t is not None).device
    if any(t is not None and t.device != first for t in tensors):
        places = {t.device for t in tensors if t is not None}
        raise InputError(f"{op} got tensors on {' and '.join(sorted(map(str, places)))}: move them to one device")


def _shape(op: str, name: str, tensor: Tensor | None, expected: tuple[int, ...]) -> None:
    if tensor is not None and tensor.shape != expected:
        raise InputError(f"{op}: {name} must have the shape {expected}, not {tuple(tensor.shape)}")


def _matrix(op: str, x: Tensor, weight: Tensor) -> None:
    if weight.dim() != 2 or x.dim() < 1 or x.shape[-1] != weight.shape[1]:
        raise InputError(
            f"{op}: an input of shape {tuple(x.shape)} does not fit a weight of shape {tuple(weight.shape)}: "
            "the last dimension of the one must be in_features, the second of the other"
        )


def _mask(op: str, mask: Tensor | None, weight: Tensor) -> None:
    _shape(op, "mask", mask, tuple(weight.shape))
    if mask is not None and mask.dtype != torch.bool:
        raise InputError(f"{op}: mask must be bool, not {mask.dtype}")


def _tiles(op: str, tiles: Sequence[Tensor] | None, mask: Tensor | None, weight: Tensor) -> None:
    if tiles is None:
        return
    expected = layout(weight.shape[0], weight.shape[1])
    if mask is None:
        raise InputError(f"{op}: tiles are a mask's: give the mask, too")
    if len(tiles) != len(expected):
        raise InputError(f"{op}: tiles must be the {len(expected)} tensors of TileLists.tensors(), not {len(tiles)}")
    for tensor, (name, (shape, dtype)) in zip(tiles, expected.items(), strict=True):
        if tensor.shape != shape or tensor.dtype != dtype or not tensor.is_contiguous():
            raise InputError(
                f"{op}: of a weight of shape {tuple(weight.shape)} the tiles' {name} must be {dtype}, contiguous and "
                f"of shape {shape}, not {tensor.dtype} of {tuple(tensor.shape)}: make TileLists of this weight's mask"
            )
    _same_device(op, (weight, *tiles))


def _qat_linear(x: Tensor, weight: Tensor, bias: Any, mask: Any, *rest: Any) -> None:
    weight_scale, input_scale = rest[:2]
    op, outputs = "qat_linear", (weight.shape[0],)
    _same_device(op, (x, weight, bias, mask, weight_scale, input_scale))
    _matrix(op, x, weight)
    _mask(op, mask, weight)
    _shape(op, "bias", bias, outputs)
    _shape(op, "weight_scale", weight_scale, outputs)
    if input_scale is not None and input_scale.numel() != 1:
        raise InputError(f"{op}: input_scale must be one value, not {input_scale.numel()}")
    _tiles(op, rest[-1], mask, weight)


def _qat_linear_backward(grad: Tensor, x: Any, weight: Tensor, mask: Any, *rest: Any) -> None:
    _tiles("qat_linear_backward", rest[-1], mask, weight)


def _int8_linear(
    x: Tensor, weight: Tensor, weight_scale: Tensor, bias: Any, input_scale: Any, activation: str, _: Any, to: Any
) -> None:
    op, outputs = "int8_linear", (weight.shape[0],)
    _same_device(op, (x, weight, weight_scale, bias, input_scale, to))
    _matrix(op, x, weight)
    _shape(op, "weight_scale", weight_scale, outputs)
    _shape(op, "bias", bias, outputs)
    if weight.dtype != torch.int8:
        raise InputError(f"{op}: weight must be int8, not {weight.dtype}")
    _input_scale(op, x, input_scale)
    if to is not None and to.numel() != 1:
        raise InputError(f"{op}: output_scale must be one value, not {to.numel()}")
    _activation(op, activation)


def _input_scale(op: str, x: Tensor, scale: Tensor | None) -> None:
    rows = x.shape[:-1].numel() if x.dtype == torch.int8 else 1
    if scale is not None and scale.numel() not in (1, rows):
        each = f" or one for each of {rows} rows" if rows != 1 else ""
        raise InputError(f"{op}: input_scale must be one value{each}, not {scale.numel()}")


def _activation(op: str, activation: str) -> None:
    if activation not in ACTIVATIONS:
        raise InputError(f"{op}: unknown activation {activation!r}: use {', '.join(ACTIVATIONS)}")


def _layer_norm(x: Tensor, residual: Any, weight: Tensor, bias: Tensor, *_: Any) -> None:
    op, width = "layer_norm_quantize_rows", tuple(x.shape[-1:])
    _same_device(op, (x, residual, weight, bias))
    _shape(op, "residual", residual, tuple(x.shape))
    _shape(op, "weight", weight, width)
    _shape(op, "bias", bias, width)


def _gelu(x: Tensor, approximate: str, *_: Any) -> None:
    if approximate not in ("none", "tanh"):
        raise InputError(f"gelu_quantize_rows: unknown approximation {approximate!r}: use none or tanh")


def _broadcast(op: str, scale: Tensor, x: Tensor) -> None:
    missing = x.dim() - scale.dim()
    fits = missing >= 0 and all(s in (1, n) for s, n in zip(scale.shape, x.shape[missing:], strict=True))
    if not fits:
        raise InputError(f"{op}: a scale of shape {tuple(scale.shape)} does not broadcast to x's, {tuple(x.shape)}")


def _fake_quant(x: Tensor, scale: Tensor, *_: Any) -> None:
    _same_device("fake_quant", (x, scale))
    _broadcast("fake_quant", scale, x)


def _fake_quant_backward(grad: Tensor, x: Tensor, scale: Tensor, *_: Any) -> None:
    op = "fake_quant_backward"
    _same_device(op, (grad, x, scale))
    _shape(op, "grad", grad, tuple(x.shape))
    _broadcast(op, scale, x)


def _int8_embedding(indices: Tensor, weight: Tensor, scale: Tensor, *_: Any) -> None:
    op = "int8_embedding"
    _same_device(op, (indices, weight, scale))
    if indices.is_floating_point() or indices.is_complex() or indices.dtype == torch.bool:
        raise InputError(f"{op}: indices must be integers, not {indices.dtype}")
    if weight.dtype not in (torch.int8, torch.int16):
        raise InputError(f"{op}: weight must be int8 or int16, not {weight.dtype}")
    if weight.dim() != 2:
        raise InputError(f"{op}: weight must be a matrix, a row for each index, not of shape {tuple(weight.shape)}")
    _shape(op, "scale", scale, (weight.shape[0],))


def _masked_linear(x: Tensor, weight: Tensor, mask: Tensor, bias: Any, *rest: Any) -> None:
    _same_device("masked_linear", (x, weight, mask, bias))
    _matrix("masked_linear", x, weight)
    _mask("masked_linear", mask, weight)
    _shape("masked_linear", "bias", bias, (weight.shape[0],))
    _tiles("masked_linear", rest[-1], mask, weight)


def _masked_linear_backward(grad: Tensor, x: Tensor, weight: Tensor, mask: Tensor, *rest: Any) -> None:
    _tiles("masked_linear_backward", rest[-1], mask, weight)


def _sparse_int8_linear(
    op: str, x: Tensor, stored: dict[str, Tensor], shapes: Mapping[str, tuple[int, ...]], rest: tuple[Any, ...]
) -> None:
    """stored: the weight's tensors; shapes: of some of them. rest: the arguments from the weight's scale on."""
    scale, bias, input_scale, activation = rest[:4]
    _same_device(op, (x, *stored.values(), scale, bias, input_scale))
    _shape(op, "bias", bias, tuple(scale.shape))
    for name, shape in shapes.items():
        _shape(op, name, stored[name], shape)
    if stored["values"].dtype != torch.int8:
        raise InputError(f"{op}: values must be int8, not {stored['values'].dtype}")
    _input_scale(op, x, input_scale)
    _activation(op, activation)


def _block_sparse(x: Tensor, values: Tensor, columns: Tensor, offsets: Tensor, order: Tensor, *rest: Any) -> None:
    op, outputs = "block_sparse_int8_linear", rest[0].shape[0]
    if values.dim() != 3 or any(side not in (16, 32, 64, 128) for side in values.shape[1:]):
        raise InputError(
            f"{op}: values must be [blocks, R, C] with R and C of 16, 32, 64 or 128, not {tuple(values.shape)}"
        )
    blocks, r, c = values.shape
    if outputs % r or x.shape[-1] % c:
        raise InputError(f"{op}: blocks of {r} x {c} do not divide a weight of {outputs} x {x.shape[-1]}")
    stored = {"values": values, "block_columns": columns, "offsets": offsets, "order": order}
    shapes = {"block_columns": (blocks,), "offsets": (outputs // r + 1,), "order": (outputs // r,)}
    _int32(op, block_columns=columns, offsets=offsets, order=order)
    _sparse_int8_linear(op, x, stored, shapes, rest)


def _bitmask(x: Tensor, values: Tensor, bits: Tensor, offsets: Tensor, *rest: Any) -> None:
    op, outputs, inputs = "bitmask_int8_linear", rest[0].shape[0], x.shape[-1]
    shapes = {"bits": (outputs, -(-inputs // 8)), "offsets": (outputs, -(-inputs // CHUNK))}
    _int32(op, offsets=offsets)
    _sparse_int8_linear(op, x, {"values": values, "bits": bits, "offsets": offsets}, shapes, rest)


def _semi_structured(x: Tensor, values: Tensor, indices: Tensor, *rest: Any) -> None:
    op, outputs, inputs = "semi_structured_int8_linear", rest[0].shape[0], x.shape[-1]
    if inputs % 4:
        raise InputError(f"{op}: in_features must be a multiple of 4, not {inputs}")
    shapes = {"values": (outputs, inputs // 2), "indices": (outputs, -(-inputs // 8))}
    _sparse_int8_linear(op, x, {"values": values, "indices": indices}, shapes, rest)


def _int32(op: str, **tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype != torch.int32:
            raise InputError(f"{op}: {name} must be int32, not {tensor.dtype}")


CHECKS: dict[str, Callable[..., None]] = {
    "layer_norm_quantize_rows": _layer_norm,
    "gelu_quantize_rows": _gelu,
    "fake_quant": _fake_quant,
    "fake_quant_backward": _fake_quant_backward,
    "qat_linear": _qat_linear,
    "qat_linear_backward": _qat_linear_backward,
    "int8_linear": _int8_linear,
    "int8_embedding": _int8_embedding,
    "masked_linear": _masked_linear,
    "block_sparse_int8_linear": _block_sparse,
    "bitmask_int8_linear": _bitmask,
    "semi_structured_int8_linear": _semi_structured,
    "masked_linear_backward": _masked_linear_backward,
}
