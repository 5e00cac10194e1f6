"""What a weight that can be masked has in common, whether of a linear layer or of an embedding."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling

from sparseq_kernels import InputError, Pattern
from sparseq_kernels.errors import InputTypeError
from sparseq_kernels.formats import FLOAT_BITS
from sparseq_kernels.looks import has_values
from sparseq_kernels.reference.qat_linear import masked
from sparseq_kernels.tiles import TileLists
from sparseq_kernels.triton.runtime.availability import interpreted

from . import kin
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
    """A module with a `weight`, quantization settings, and a mask that is part of its state only when it has one.

    Layers that share a weight (tied ones) share its mask, one tensor, too. The first mask of a layer gives its deep
    copies one that keeps everything, so that averages of the model (`torch.optim.swa_utils.AveragedModel`) made before
    pruning have the buffers that they copy masks into.
    """

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
        self.lineage = kin.new_lineage()
        self.register_buffer("mask", None)
        self._list_tiles()
        kin.register(self)
        self._take_tied_mask()

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        super().register_parameter(name, param)
        if name == "weight":
            self._take_tied_mask()

    def _take_tied_mask(self) -> None:
        """The mask of a weight that another layer masks already, and that this one shares from now on."""
        if "mask" in self._buffers and self.mask is None:
            for layer in kin.tied(self):
                if layer.mask is not None and layer.mask.shape == self.weight.shape:
                    self._hold_mask(layer.mask)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        kin.register(self)

    @property
    def bits(self) -> int | None:
        return self.settings_.bits

    def set_mask(self, mask: Tensor | None) -> None:
        """Keeps the weights where `mask` (bool, of the weight's shape) is True; None keeps them all.

        Layers that share this one's weight get the mask too. Masked weights are set to zero, unless the layer's
        `regrow` is on: then they keep their values and receive the dense gradient, so that a later selection can bring
        them back.
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
        for layer in kin.tied(self):
            layer._hold_mask(mask)
        self.apply_mask()

    def _hold_mask(self, mask: Tensor | None) -> None:
        if mask is not None and self.mask is None:
            for copy in kin.copies(self):
                if copy.mask is None and copy.weight.shape == mask.shape:
                    copy.mask = torch.ones(mask.shape, dtype=torch.bool, device=copy.weight.device)
        self.mask = mask
        self._list_tiles()

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
        # The state of a plain layer has no mask, that of a pruned one has: follow what comes.
        mask = state_dict.get(prefix + "mask")
        if mask is not None and mask.dtype != torch.bool:
            raise InputError(f"{prefix}mask in the state dict is {mask.dtype}, and a mask is bool")
        if mask is not None and self.mask is None:
            shared = [layer.mask for layer in kin.tied(self) if layer.mask is not None]
            self._hold_mask(shared[0] if shared else self._all_kept())
        elif mask is None and prefix + "weight" in state_dict:
            self.mask = None
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._list_tiles()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "MaskedWeight":
        before = self.mask
        super()._apply(fn, recurse)
        if before is not None and self.mask is not None and self.mask is not before:
            self.mask = kin.moved(before, self.mask)  # Tied layers share it on the other device too.
        self._list_tiles()
        return self

    def _fit_rows(self) -> None:
        """Follows a weight that was given more rows or fewer, as `resize_token_embeddings` gives them: masks keep
        every new row. Layers that share the weight follow too."""
        for layer in kin.tied(self):
            layer._fit_own_rows()

    def _fit_own_rows(self) -> None:
        weight, mask = self._parameters.get("weight"), self._buffers.get("mask")
        if weight is None or mask is None or mask.shape == weight.shape or mask.shape[1:] != weight.shape[1:]:
            return
        longer = torch.ones(weight.shape, dtype=torch.bool, device=mask.device)
        rows = min(len(mask), len(weight))
        longer[:rows] = mask[:rows]
        for layer in kin.tied(self):
            layer._hold_mask(longer)

    def _list_tiles(self) -> None:
        """Lists the tiles of a mask that is on a GPU, or in Triton's interpreter. No buffers: the state is the same."""
        mask, self._tiles, self._tiled, self._tiled_version = self.mask, None, None, None
        if not self.multiplies or mask is None or type(mask) is not Tensor or not (mask.is_cuda or interpreted()):
            return
        lists = TileLists.from_mask(mask)
        if lists.density <= MOST_TILES:
            self._tiles, self._tiled, self._tiled_version = lists.tensors(), mask, kin.version_of(mask)

    def mask_tiles(self) -> list[Tensor] | None:
        """What ops take as `tiles`: of this mask, if it leaves so many tiles empty that leaving them out pays, on a
        GPU."""
        # Another mask may stand in its place for a while, as torch.func.functional_call puts it there.
        if self._tiled is not self.mask or self.mask is None:
            return None
        # Or it was overwritten in place, as averaged models and DistributedDataParallel do.
        if not is_compiling() and self._tiled_version != kin.version_of(self.mask):
            self._list_tiles()
        return self._tiles
