"""The embeddings of an encoder's input, in one call of native code."""

import ctypes

import torch
from torch import Tensor

from ..encoder import EmbeddingTable, EncoderEmbeddings
from ..errors import InputError
from . import native
from .tokens import Tokens

_P, _I64, _F = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float


class _Table(ctypes.Structure):
    _fields_ = (("values", _P), ("scale", _P), ("rows", _I64), ("bits", _I64))


class _Embeddings(ctypes.Structure):
    _fields_ = (
        ("word", _Table),
        ("type", _Table),
        ("position", _Table),
        # struct norm
        ("weight", _P),
        ("bias", _P),
        ("epsilon", _F),
        ("columns", _I64),
        ("padding", _I64),
    )


class NativeEmbeddings:
    """Embeddings that native code computes, from the tables themselves: what is written into them is seen.

    Raises InputError for tables that do not fit each other, or are not contiguous on the CPU.
    """

    def __init__(self, embeddings: EncoderEmbeddings) -> None:
        self.features = embeddings.norm.weight.shape[-1]
        _check(embeddings, self.features)
        # Their memory lives as long as the addresses.
        self._embeddings = embeddings
        padding = -1 if embeddings.padding_idx is None else embeddings.padding_idx
        norm = embeddings.norm
        self._made = _Embeddings(
            _table(embeddings.word),
            _table(embeddings.token_type),
            _table(embeddings.position),
            norm.weight.data_ptr(),
            norm.bias.data_ptr(),
            norm.eps,
            self.features,
            padding,
        )
        self._at = ctypes.addressof(self._made)

    @property
    def has_types(self) -> bool:
        """Whether there is a table of token types."""
        return self._embeddings.token_type is not None

    def __call__(self, ids: Tensor, types: Tensor | None = None, tokens: Tokens | None = None) -> Tensor | None:
        """fp32 [batch * length, E], of which the first rows are those of the tokens; the others are not specified.

        Args:
            ids: int64 or int32 [batch, length], on the CPU.
            types: the like, or None for zeros.
            tokens: of the batch, or None for all of it.

        Returns:
            None for indices of another dtype, shape or device, and where an id, a type or a number of a position is in
            no table's rows, be it at one of the tokens or elsewhere in the batch. That is for the caller to refuse.
        """
        if ids.dim() != 2 or not _are_indices(ids):
            return None
        if types is not None:
            if types.shape != ids.shape or not _are_indices(types) or not self.has_types:
                return None
            types = types.to(torch.int64).contiguous()
        ids = ids.to(torch.int64).contiguous()
        batch, length = ids.shape
        if tokens is None:
            tokens = Tokens.of(None, batch, length)
            assert tokens is not None  # without a mask
        elif (tokens.batch, tokens.length) != (batch, length):
            shape = (tokens.batch, tokens.length)
            raise InputError(f"embeddings: ids must be of the tokens' shape {shape}, not {(batch, length)}")
        x = torch.empty((batch * length, self.features), dtype=torch.float32, device=native.CPU)
        outside = native.library().sparseq_embed(
            self._at,
            ids.data_ptr(),
            None if types is None else types.data_ptr(),
            batch,
            length,
            tokens.places_at,
            tokens.count,
            tokens.numbers_at,
            x.data_ptr(),
            native.threads(),
        )
        return None if outside else x


def _are_indices(indices: Tensor) -> bool:
    return indices.is_cpu and indices.dtype in (torch.int64, torch.int32) and indices.layout is torch.strided


def _table(table: EmbeddingTable | None) -> _Table:
    if table is None:
        return _Table(None, None, 0, 0)
    scale = None if table.scale is None else table.scale.data_ptr()
    return _Table(table.values.data_ptr(), scale, table.values.shape[0], table.bits)


def _check(embeddings: EncoderEmbeddings, features: int) -> None:
    for name in ("word", "position", "token_type"):
        table: EmbeddingTable | None = getattr(embeddings, name)
        if table is None:
            if name != "token_type":
                raise InputError(f"embeddings: there is no {name} table")
            continue
        values, scale, nibbles = table.values, table.scale, table.bits == 4
        dtype = torch.float32 if scale is None else torch.uint8 if nibbles else torch.int8
        width = (features + 1) // 2 if nibbles else features
        if values.dtype != dtype or values.dim() != 2 or not values.shape[0] or values.shape[1] != width:
            raise InputError(
                f"embeddings: the {name} table must be {dtype} of shape [rows, {width}], not {values.dtype} of "
                f"shape {tuple(values.shape)}"
            )
        if scale is not None and (scale.dtype != torch.float32 or scale.shape != values.shape[:1]):
            raise InputError(f"embeddings: the {name} table must have a scale in fp32 for each of its rows")
    norm = embeddings.norm
    for tensor in (norm.weight, norm.bias):
        if tensor.dtype != torch.float32 or tensor.shape != (features,):
            raise InputError(f"embeddings: the LayerNorm must be of {features} features, in fp32")
    tables = (embeddings.word, embeddings.position, embeddings.token_type)
    tensors = [norm.weight, norm.bias, *(one for table in tables if table for one in (table.values, table.scale))]
    if not all(tensor is None or (tensor.is_cpu and tensor.is_contiguous()) for tensor in tensors):
        raise InputError("embeddings: all tensors must be contiguous, on the CPU")
    if embeddings.padding_idx is not None and embeddings.padding_idx < 0:
        raise InputError(f"embeddings: padding_idx must be an id, not {embeddings.padding_idx}")
