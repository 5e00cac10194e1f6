"""What a file says of a sparseq layer, checked before the layer is made: its settings, and the tensors they foretell.

A layer is named by its class, as `layers.LAYERS` has it, and its settings are what its method `settings()` gives.
"""

from typing import Any

import torch

from sparseq_kernels import InputError, Pattern
from sparseq_kernels.dtypes import FLOAT_DTYPES, float_dtype
from sparseq_kernels.formats import FLOAT_BITS, MOST_ROWS, TensorSpec, check_layout, check_shape
from sparseq_kernels.formats import tensor_specs as weight_specs
from sparseq_kernels.untrusted import fields, flag, integer, number, one_of, quoted

from .settings import ACTIVATIONS, BITS, SCALES

# Characters of a pattern: longer ones would be sides of blocks that no weight has.
_LONGEST_PATTERN = 32
_QUANT = ("bits", "activation", "scale", "pattern", "mask", "regrow", "quantizing", "dtype")
_LINEAR = ("in_features", "out_features", "bias", *_QUANT)
_EMBEDDING = (
    *("num_embeddings", "embedding_dim", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse"),
    *_QUANT,
)
_LARGEST_NORM = 1e30


def check_settings(kind: str, settings: object, where: str) -> None:
    """Raises InputError unless `settings` are those of a layer of the class `kind`: exact keys, types and ranges.

    Allocates nothing. `where` begins the message, and says which layer of which file it is.
    """
    one_of(kind, tuple(_CHECKS), f"{where}: class")
    _CHECKS[kind](settings, where)


def tensor_specs(kind: str, settings: dict[str, Any]) -> dict[str, TensorSpec]:
    """Every tensor in the state of the layer, by its name there; `settings` must have passed `check_settings`."""
    return _SPECS[kind](settings)


def shape_of(kind: str, settings: dict[str, Any]) -> tuple[int, int]:
    """(rows, columns) of the layer's weight: out_features x in_features, or num_embeddings x embedding_dim."""
    if kind in ("PackedLinear", "PackedEmbedding"):
        rows, columns = settings["weight"]["shape"]
        return rows, columns
    names = ("out_features", "in_features") if kind == "QuantSparseLinear" else ("num_embeddings", "embedding_dim")
    return settings[names[0]], settings[names[1]]


def _check_packed_linear(settings: object, where: str) -> None:
    found = fields(settings, ("weight", "bias", "static", "dtype"), where)
    check_layout(found["weight"], f"{where}: weight")
    if found["bias"] is not None:
        float_dtype(found["bias"], f"{where}: bias")
    flag(found["static"], f"{where}: static")
    float_dtype(found["dtype"], f"{where}: dtype")
    if found["static"] and found["weight"]["bits"] == FLOAT_BITS:
        raise InputError(f"{where}: static is true, and a weight that is not quantized has no scale for its input")


def _packed_linear_specs(settings: dict[str, Any]) -> dict[str, TensorSpec]:
    specs, rows = _packed_specs(settings), settings["weight"]["shape"][0]
    if settings["bias"] is not None:
        specs["bias"] = TensorSpec((rows,), (FLOAT_DTYPES[settings["bias"]],))
    if settings["static"]:
        specs["input_scale"] = TensorSpec((1,), (torch.float32,))
    return specs


def _packed_specs(settings: dict[str, Any]) -> dict[str, TensorSpec]:
    """The tensors that every packed layer has."""
    layout = settings["weight"]
    specs = weight_specs(layout, FLOAT_DTYPES[settings["dtype"]])
    if layout["bits"] != FLOAT_BITS:
        specs["scale"] = TensorSpec((layout["shape"][0],), (torch.float32,))
    return specs


def _check_packed_embedding(settings: object, where: str) -> None:
    found = fields(settings, ("weight", "padding_idx", "dtype"), where)
    check_layout(found["weight"], f"{where}: weight")
    _check_padding(found["padding_idx"], found["weight"]["shape"][0], where)
    float_dtype(found["dtype"], f"{where}: dtype")


def _check_padding(index: object, rows: int, where: str) -> None:
    if index is not None:
        integer(index, -rows, rows - 1, f"{where}: padding_idx")


def _check_linear(settings: object, where: str) -> None:
    found = fields(settings, _LINEAR, where)
    check_shape([found["out_features"], found["in_features"]], f"{where}: [out_features, in_features]")
    flag(found["bias"], f"{where}: bias")
    _check_quantization(found, where)


def _check_embedding(settings: object, where: str) -> None:
    found = fields(settings, _EMBEDDING, where)
    rows, _ = check_shape(
        [found["num_embeddings"], found["embedding_dim"]], f"{where}: [num_embeddings, embedding_dim]"
    )
    _check_padding(found["padding_idx"], rows, where)
    if found["max_norm"] is not None:
        number(found["max_norm"], 0, _LARGEST_NORM, f"{where}: max_norm")
    number(found["norm_type"], 0, _LARGEST_NORM, f"{where}: norm_type")
    flag(found["scale_grad_by_freq"], f"{where}: scale_grad_by_freq")
    flag(found["sparse"], f"{where}: sparse")
    _check_quantization(found, where)


def _check_quantization(found: dict[str, Any], where: str) -> None:
    one_of(found["bits"], BITS, f"{where}: bits")
    one_of(found["activation"], ACTIVATIONS, f"{where}: activation")
    one_of(found["scale"], SCALES, f"{where}: scale")
    pattern = found["pattern"]
    if not isinstance(pattern, str) or len(pattern) > _LONGEST_PATTERN:
        raise InputError(f"{where}: pattern is {quoted(pattern)}, and must be such as 'unstructured', '2:4' or '4x4'")
    try:
        sides = Pattern.parse(pattern)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    integer(max(sides.first, sides.second), 1, MOST_ROWS, f"{where}: the block of pattern {pattern!r}")
    for name in ("mask", "regrow", "quantizing"):
        flag(found[name], f"{where}: {name}")
    if found["quantizing"] and found["bits"] is None:
        raise InputError(f"{where}: quantizing is true, and bits is null: it must be one of 4, 8 and 16 then")
    float_dtype(found["dtype"], f"{where}: dtype")


def _linear_specs(settings: dict[str, Any]) -> dict[str, TensorSpec]:
    shape, dtype = shape_of("QuantSparseLinear", settings), FLOAT_DTYPES[settings["dtype"]]
    # Scales are made in fp32, and in fp64 for an fp64 weight; a cast of the layer has taken them along.
    scales = tuple(dict.fromkeys((torch.float32, dtype)))
    specs = _weight_and_mask(shape, dtype, settings["mask"])
    if settings["bias"]:
        specs["bias"] = TensorSpec(shape[:1], (dtype,))
    if settings["bits"] is not None and settings["scale"] == "lsq":
        specs["step_size"] = TensorSpec(shape[:1], scales)
    if settings["bits"] is not None and settings["activation"] == "static":
        specs["input_scale"] = TensorSpec((1,), scales)
    return specs


def _embedding_specs(settings: dict[str, Any]) -> dict[str, TensorSpec]:
    return _weight_and_mask(shape_of("QuantEmbedding", settings), FLOAT_DTYPES[settings["dtype"]], settings["mask"])


def _weight_and_mask(shape: tuple[int, int], dtype: torch.dtype, mask: bool) -> dict[str, TensorSpec]:
    specs = {"weight": TensorSpec(shape, (dtype,))}
    if mask:
        specs["mask"] = TensorSpec(shape, (torch.bool,))
    return specs


_CHECKS = {
    "QuantSparseLinear": _check_linear,
    "QuantEmbedding": _check_embedding,
    "PackedLinear": _check_packed_linear,
    "PackedEmbedding": _check_packed_embedding,
}
_SPECS = {
    "QuantSparseLinear": _linear_specs,
    "QuantEmbedding": _embedding_specs,
    "PackedLinear": _packed_linear_specs,
    "PackedEmbedding": _packed_specs,
}
