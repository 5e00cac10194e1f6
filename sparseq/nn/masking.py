"""What a weight that can be masked has in common, whether of a linear layer or of an embedding."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sparseq_kernels import InputError, Pattern
from sparseq_kernels.formats import FLOAT_BITS
from sparseq_kernels.reference.qat_linear import masked
from sparseq_kernels.tiles import TileLists
from sparseq_kernels.triton.runtime import interpreted

from .settings import QuantSettings

# The share of tiles up to which a product by lists is taken. A step of it costs more than one of a dense product, whose
# tiles are larger: on an H100 a tenth of the tiles took 0.6 to 0.9 of the time at 8192 rows, and 0.9 to 1.2 at 1024.
MOST_TILES = 0.25


class WeightCounts(NamedTuple):
    """Of a weight matrix alone: all its weights, those that no mask removes, the bits of each (32: float)."""

    total: int
    kept: int
    bits: int


class MaskedWeight(nn.Module):
    """A module with a `weight`, quantization settings, and a mask that is part of its state only when it has one."""

    weight: Tensor
    mask: Tensor | None
    settings_: QuantSettings

    # Whether the layer multiplies by its weight, and so has a use for its mask's tiles.
    multiplies = False

    def channel_scale(self) -> Tensor:
        """fp32 [rows of the weight]: the scale of each row's integers."""
        raise NotImplementedError

    def _init_mask(self, pattern: str | Pattern) -> None:
        self.pattern = Pattern.parse(pattern)
        self.quantizing = self.settings_.bits is not None
        self.regrow = False
        self.register_buffer("mask", None)
        self._list_tiles()

    @property
    def bits(self) -> int | None:
        return self.settings_.bits

    def set_mask(self, mask: Tensor | None) -> None:
        """Keeps the weights where `mask` (bool, of the weight's shape) is True; None keeps them all.

        Masked weights are set to zero, unless the layer's `regrow` is on: then they keep their values and receive the
        dense gradient, so that a later selection can bring them back.
        """
        if mask is None:
            self.mask = None
            self._list_tiles()
            return
        if mask.dtype != torch.bool or mask.shape != self.weight.shape:
            raise InputError(
                f"a mask must be bool of the weight's shape {tuple(self.weight.shape)}, "
                f"not {mask.dtype} of shape {tuple(mask.shape)}"
            )
        self.mask = mask.to(self.weight.device, copy=True)
        self._list_tiles()
        self.apply_mask()

    @torch.no_grad()
    def apply_mask(self) -> None:
        """Sets masked weights to zero again: an optimizer's momentum moves them even where their gradient is zero."""
        if self.mask is not None and not self.regrow:
            self.weight.masked_fill_(~self.mask, 0)

    def masked_weight(self) -> Tensor:
        """The weight with exact zeros where it is masked."""
        return masked(self.weight, self.mask)

    def weight_counts(self) -> WeightCounts:
        total = self.weight.numel()
        kept = total if self.mask is None or self.mask.is_meta else int(self.mask.sum())
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
            self.mask = torch.ones(self.weight.shape, dtype=torch.bool, device=self.weight.device)
        self.regrow, self.quantizing = settings["regrow"], settings["quantizing"]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        weight = state_dict.get(prefix + "weight")
        if isinstance(weight, Tensor) and weight.shape == (*self.weight.shape, 1):
            state_dict[prefix + "weight"] = weight.squeeze(-1)  # as `sparseq.save` stores it
        # The state of a plain layer has no mask, that of a pruned one has: follow what comes.
        mask = state_dict.get(prefix + "mask")
        if mask is not None and self.mask is None:
            self.mask = torch.ones(self.weight.shape, dtype=torch.bool, device=self.weight.device)
        elif mask is None and prefix + "weight" in state_dict:
            self.mask = None
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._list_tiles()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "MaskedWeight":
        super()._apply(fn, recurse)
        self._list_tiles()
        return self

    def _list_tiles(self) -> None:
        """Lists the tiles of a mask that is on a GPU, or in Triton's interpreter. No buffers: the state is the same."""
        mask, self._tiles, self._tiled = self.mask, None, None
        if not self.multiplies or mask is None or type(mask) is not Tensor or not (mask.is_cuda or interpreted()):
            return
        lists = TileLists.from_mask(mask)
        if lists.density <= MOST_TILES:
            self._tiles, self._tiled = lists.tensors(), mask

    def mask_tiles(self) -> list[Tensor] | None:
        """What ops take as `tiles`: of this mask, if it leaves so many tiles empty that leaving them out pays, on a
        GPU."""
        # Another mask may stand in its place for a while, as torch.func.functional_call puts it there.
        return self._tiles if self._tiled is self.mask else None
