"""What enters the first layer: the embeddings of a call, by native code where that gives what the modules would."""

from typing import Any

import torch
from torch import Tensor, nn

from sparseq_kernels import InputError
from sparseq_kernels.cpu.embeddings import NativeEmbeddings
from sparseq_kernels.cpu.native import CPU
from sparseq_kernels.cpu.tokens import Tokens
from sparseq_kernels.encoder import EmbeddingTable, EncoderEmbeddings
from sparseq_kernels.torch_internals import is_zerotensor

from ..packed_embedding import PackedEmbedding
from .families import Family
from .reading import UnfitError
from .weights import EncoderWeights, norm_of

_PARTS = ("word_embeddings", "position_embeddings", "LayerNorm", "dropout")
_TYPES = "token_type_embeddings"


class Entry:
    """What enters the first layer in one call of a model. shape: (batch, length)."""

    __slots__ = ("_inputs", "_model", "_native", "_weights", "shape")

    def __init__(
        self, model: Any, weights: EncoderWeights, native: NativeEmbeddings | None, inputs: dict[str, Any]
    ) -> None:
        """native: the embeddings as native code has them; None where the model's modules are to be called."""
        self._model, self._weights, self._native, self._inputs = model, weights, native, inputs
        self.shape = batch_shape(inputs)

    def whole(self) -> Tensor:
        """[B, L, H]. UnfitError where it does not fit the layers."""
        return self._by_modules() if (x := self._by_native_code(None)) is None else x.view(*self.shape, -1)

    def rows(self, tokens: Tokens) -> Tensor:
        """[rows, H], in memory of its own: those of the tokens, and after them either none or room for all the batch.
        UnfitError where they do not fit the layers."""
        x = self._by_native_code(tokens)
        return tokens.gather(self._by_modules()) if x is None else x

    def _by_native_code(self, tokens: Tokens | None) -> Tensor | None:
        """[B L, H], of which the first rows are those of the tokens, or of all; None where the modules are called."""
        native, inputs = self._native, self._inputs
        ids, types = inputs["input_ids"], inputs.get("token_type_ids")
        if native is None or ids is None or inputs["position_ids"] is not None:
            return None
        # Without values in memory.
        if is_zerotensor(ids) or (types is not None and is_zerotensor(types)):
            return None
        project = self._model._modules.get("embeddings_project")
        if project is None:
            return native(ids, types, tokens)
        # As the module is called by the model: with all of the batch.
        x = native(ids, types)
        if x is None:
            return None
        x = self._fitting(project(x.view(*self.shape, -1)))
        return x.reshape(-1, x.shape[-1]) if tokens is None else tokens.gather(x)

    def _by_modules(self) -> Tensor:
        family: Family = self._model._family
        return self._fitting(family.embed(self._model, self._inputs))

    def _fitting(self, hidden: Tensor) -> Tensor:
        if hidden.dtype != self._weights.dtype or hidden.device != self._weights.device:
            raise UnfitError("its embeddings are of another dtype or on another device than its layers")
        if hidden.shape != (*self.shape, self._weights.heads * self._weights.head_size):
            raise UnfitError("its embeddings give another shape than its layers take for these inputs")
        return hidden


def batch_shape(inputs: dict[str, Any]) -> tuple[int, int]:
    """(batch, length) of a call's inputs."""
    ids = inputs["input_ids"]
    batch, length = (inputs["inputs_embeds"] if ids is None else ids).shape[:2]
    return batch, length


def read_embeddings(model: Any, embeddings: Any) -> NativeEmbeddings:
    """The model's embeddings as native code has them. UnfitError where their modules are to be called."""
    family: Family = model._family
    if type(embeddings).__module__ != model._plain.__module__:
        raise UnfitError(f"they are of the class {type(embeddings).__name__}, which is not transformers' own")
    parts = (*_PARTS, _TYPES) if "token_type_ids" in family.inputs else _PARTS
    if embeddings._modules.keys() != set(parts):
        raise UnfitError(f"they have other parts than {', '.join(parts)}")
    if type(embeddings.dropout) is not nn.Dropout:
        raise UnfitError(f"the dropout is of the class {type(embeddings.dropout).__name__}")
    word, position = _table(embeddings.word_embeddings), _table(embeddings.position_embeddings)
    types = _table(getattr(embeddings, _TYPES)) if _TYPES in parts else None
    padding_idx = embeddings.padding_idx if family.counts_positions else None
    if not isinstance(padding_idx, int | None) or isinstance(padding_idx, bool):
        raise UnfitError("they have no padding_idx")
    _check_buffers(embeddings, position.values.shape[0], padding_idx)
    found = EncoderEmbeddings(word, position, types, norm_of("the LayerNorm", embeddings.LayerNorm), padding_idx)
    try:
        return NativeEmbeddings(found)
    except InputError as error:
        raise UnfitError(str(error)) from None


def _table(layer: nn.Module) -> EmbeddingTable:
    if type(layer) is nn.Embedding and layer.max_norm is None:
        return EmbeddingTable(layer.weight.detach())
    if type(layer) is not PackedEmbedding or layer.dtype is not torch.float32:
        raise UnfitError(f"a table is of the class {type(layer).__name__}, or not in fp32")
    with torch.inference_mode(False), torch.no_grad():
        return EmbeddingTable(layer.looked_up_values(), layer.scale)


def _check_buffers(embeddings: Any, positions: int, padding_idx: int | None) -> None:
    """UnfitError unless positions, and types where none are given, are what the buffers of transformers' models hold:
    0, 1, 2 and so on, and zeros."""
    buffers = embeddings._buffers
    numbers = torch.arange(positions, device=CPU).unsqueeze(0)
    if padding_idx is None and not _equal(buffers.get("position_ids"), numbers):
        raise UnfitError("they have positions of their own")
    if "token_type_ids" in buffers and not _equal(buffers["token_type_ids"], torch.zeros_like(numbers)):
        raise UnfitError("they have token types of their own")


def _equal(buffer: Tensor | None, expected: Tensor) -> bool:
    return buffer is not None and buffer.device == expected.device and torch.equal(buffer, expected)
