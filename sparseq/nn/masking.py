"""The base class of layers whose weight can be masked: linear layers and embeddings."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling

from sparseq_kernels import InputError, Pattern
from sparseq_kernels.block_index import BlockIndex
from sparseq_kernels.errors import InputTypeError
from sparseq_kernels.formats import FLOAT_BITS
from sparseq_kernels.numerics import mask_, masked
from sparseq_kernels.torch_internals import has_values
from sparseq_kernels.triton.runtime.availability import interpreted

from . import related
from .deprecated import renamed_method
from .scripting import refuse_torchscript
from .settings import QuantSettings
from .sharded import local_parts

# The share of a mask's blocks up to which products skip the empty ones. A step of such a product costs more than one of
# a dense product, whose tiles are larger: on an H100 a tenth of the blocks took 0.6 to 0.9 of the dense product's time
# at 8192 rows, and 0.9 to 1.2 at 1024.
MOST_BLOCKS = 0.25


class WeightCounts(NamedTuple):
    """Counts of one weight matrix: all weights, those that no mask removes, and the bits of each (32: float)."""

    total: int
    kept: int
    bits: int


class MaskedWeight(nn.Module):
    """A module with a `weight`, quantization settings, and a mask that is part of its state only if it has one.

    Layers that share a weight (tied layers) share its mask too, as one tensor. When a layer gets its first mask, its
    deep copies get one that keeps everything, so that averages of the model made before pruning
    (`torch.optim.swa_utils.AveragedModel`) have the buffers that masks are copied into.
    """

    weight: Tensor
    mask: Tensor | None
    settings_: QuantSettings

    # Whether the layer multiplies by its weight, and so has a use for the index of its mask's blocks.
    multiplies = False

    def channel_scale(self) -> Tensor:
        """fp32 [rows of the weight]: the scale of each row's integers."""
        raise NotImplementedError

    def __prepare_scriptable__(self) -> nn.Module:
        refuse_torchscript(self)

    def _init_mask(self, pattern: str | Pattern) -> None:
        self.pattern = Pattern.parse(pattern)
        self.quantizing = self.settings_.bits is not None
        self.regrow = False
        self.lineage = related.new_lineage()
        self.register_buffer("mask", None)
        self._index_blocks()
        related.register(self)
        self._take_tied_mask()

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        super().register_parameter(name, param)
        if name == "weight":
            self._take_tied_mask()

    def _take_tied_mask(self) -> None:
        """Takes the mask of another layer that shares the weight, if it has one."""
        if "mask" in self._buffers and self.mask is None:
            for layer in related.tied(self):
                if layer.mask is not None and layer.mask.shape == self.weight.shape:
                    self._hold_mask(layer.mask)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        related.register(self)

    @property
    def bits(self) -> int | None:
        return self.settings_.bits

    def set_mask(self, mask: Tensor | None) -> None:
        """Keeps the weights where `mask` is True (bool, of the weight's shape); None keeps all.

        Layers that share the weight get the same mask. Masked weights are set to zero, unless the layer's `regrow` is
        on: then they keep their values and receive the dense gradient, so that a later selection can restore them.

        Raises InputTypeError if the mask is not a tensor, and InputError for another dtype or shape.
        """
        if mask is not None:
            if not isinstance(mask, Tensor):
                raise InputTypeError(f"a mask must be a tensor or None, not a {type(mask).__name__}")
            if mask.dtype != torch.bool or mask.shape != self.weight.shape:
                raise InputError(
                    f"a mask must be bool of the weight's shape {tuple(self.weight.shape)}, "
                    f"not {mask.dtype} of shape {tuple(mask.shape)}"
                )
            mask = mask.to(self.weight.device, copy=True)
        for layer in related.tied(self):
            layer._hold_mask(mask)
        self.apply_mask()

    def _hold_mask(self, mask: Tensor | None) -> None:
        if mask is not None and self.mask is None:
            for copy in related.copies(self):
                if copy.mask is None and copy.weight.shape == mask.shape:
                    copy.mask = torch.ones(mask.shape, dtype=torch.bool, device=copy.weight.device)
        self.mask = mask
        self._index_blocks()

    def apply_mask(self) -> None:
        """Sets masked weights to zero again; an optimizer's momentum moves them even if their gradient is zero."""
        if self.mask is not None and not self.regrow:
            mask_(*local_parts(self.weight, self.mask))

    def masked_weight(self) -> Tensor:
        """The weight with exact zeros where it is masked."""
        return masked(self.weight, self.mask)

    def weight_counts(self) -> WeightCounts:
        total = self.weight.numel()
        kept = total if self.mask is None or not has_values(self.mask) else int(self.mask.sum())
        return WeightCounts(total, kept, self.bits or FLOAT_BITS)

    def _quant_settings(self) -> dict[str, Any]:
        """The keyword settings, as JSON."""
        return {
            "bits": self.bits,
            "activation": self.settings_.activation,
            "scale": self.settings_.scale,
            "pattern": str(self.pattern),
            "mask": self.mask is not None,
            "regrow": self.regrow,
            "quantizing": self.quantizing,
            "dtype": str(self.weight.dtype).removeprefix("torch."),
        }

    def _restore(self, settings: dict[str, Any]) -> None:
        if settings["mask"]:
            self._hold_mask(self._all_kept())
        self.regrow, self.quantizing = settings["regrow"], settings["quantizing"]

    def _all_kept(self) -> Tensor:
        return torch.ones(self.weight.shape, dtype=torch.bool, device=self.weight.device)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        weight = state_dict.get(prefix + "weight")
        if isinstance(weight, Tensor) and weight.shape == (*self.weight.shape, 1):
            state_dict[prefix + "weight"] = weight.squeeze(-1)  # as `sparseq.save` stores it
        # Only the state of a pruned layer has a mask: add or remove the mask accordingly.
        mask = state_dict.get(prefix + "mask")
        if mask is not None and mask.dtype != torch.bool:
            raise InputError(f"{prefix}mask in the state dict is {mask.dtype}, and a mask is bool")
        if mask is not None and self.mask is None:
            shared = [layer.mask for layer in related.tied(self) if layer.mask is not None]
            self._hold_mask(shared[0] if shared else self._all_kept())
        elif mask is None and prefix + "weight" in state_dict:
            self.mask = None
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._index_blocks()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "MaskedWeight":
        before = self.mask
        super()._apply(fn, recurse)
        if before is not None and self.mask is not None and self.mask is not before:
            self.mask = related.moved(before, self.mask)  # Tied layers share it on the other device too.
        self._index_blocks()
        return self

    def _fit_rows(self) -> None:
        """Resizes the masks of this layer and tied layers after the weight got more or fewer rows.

        `resize_token_embeddings` does that; masks keep all new rows.
        """
        for layer in related.tied(self):
            layer._fit_own_rows()

    def _fit_own_rows(self) -> None:
        weight, mask = self._parameters.get("weight"), self._buffers.get("mask")
        if weight is None or mask is None or mask.shape == weight.shape or mask.shape[1:] != weight.shape[1:]:
            return
        longer = torch.ones(weight.shape, dtype=torch.bool, device=mask.device)
        rows = min(len(mask), len(weight))
        longer[:rows] = mask[:rows]
        for layer in related.tied(self):
            layer._hold_mask(longer)

    def _index_blocks(self) -> None:
        """Indexes the blocks of a mask that is on a GPU, or in Triton's interpreter. The index is no buffer: the state
        does not change."""
        mask, self._block_index, self._indexed, self._indexed_version = self.mask, None, None, None
        if not self.multiplies or mask is None or type(mask) is not Tensor or not (mask.is_cuda or interpreted()):
            return
        index = BlockIndex.from_mask(mask)
        if index.density <= MOST_BLOCKS:
            self._block_index, self._indexed, self._indexed_version = index.tensors(), mask, related.version_of(mask)

    def mask_block_index(self) -> list[Tensor] | None:
        """The mask's `BlockIndex.tensors()`, which ops take as `block_index`; None where skipping its empty blocks is
        not faster: where there are few of them, and on a CPU."""
        # Another mask may be in its place temporarily, as with torch.func.functional_call.
        if self._indexed is not self.mask or self.mask is None:
            return None
        # Or it was overwritten in place, as by averaged models and DistributedDataParallel.
        if not is_compiling() and self._indexed_version != related.version_of(self.mask):
            self._index_blocks()
        return self._block_index

    mask_tiles = renamed_method("mask_tiles", "mask_block_index")
