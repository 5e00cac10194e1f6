"""Conversion of a plain model to a quantized and pruned one."""

import warnings
from collections.abc import Iterable

from torch import nn

from sparseq_kernels import InputError, Pattern

from ..criterion import MAX_LAYER_SPARSITY
from .attached import check_attached
from .embedding import QuantEmbedding
from .finite import check_finite
from .layers import named_layers
from .left_out import (
    check_no_adapters,
    check_no_offload,
    check_not_held_elsewhere,
    check_unwrapped,
    inside_fused_attention,
    left_out,
)
from .linear import QuantSparseLinear
from .masking import MaskedWeight
from .prunable import prunable_names, why_none
from .save_pretrained import attach_quantizer
from .selection import ON_MISMATCH, check_share, choice, dividing, scope_for, select_masks
from .selectors import Selector, chosen, selectors, shown
from .settings import QuantSettings


def convert(
    model: nn.Module,
    *,
    bits: int | None = 8,
    embedding_bits: int | None = None,
    sparsity: float = 0.0,
    pattern: str | Pattern = "unstructured",
    include: Iterable[Selector] | Selector = (nn.Linear, nn.Embedding),
    exclude: Iterable[Selector] | Selector = (),
    activation: str = "dynamic",
    scale: str = "max",
    scope: str = "auto",
    prune_embeddings: bool = False,
    on_mismatch: str = "error",
    max_layer_sparsity: float = MAX_LAYER_SPARSITY,
) -> nn.Module:
    """Replaces a model's linear layers and embeddings by their quantized forms, in place, and returns the model.

    include, exclude: module types (`nn.Linear`) or name patterns (`"encoder.*"`, as in fnmatch). A layer is replaced if
    its type and its name are included and neither is excluded.

    bits, activation, scale: see `QuantSparseLinear`; bits=None replaces without quantizing, for pruning alone.
    embedding_bits: of the embeddings, 4, 8 or 16; None is as `bits`. A linear layer that shares an embedding's weight
    needs the same number.

    sparsity: with a value in (0, 1) the layers of `prunable` are also pruned by magnitude, at once. scope: "global"
    ranks the weights of all layers together, "lamp" ranks them by layer-adaptive scores, "normalized" by magnitude
    relative to their layer's, "layer" prunes each layer alone; "auto" is "lamp" for patterns of blocks and "global"
    otherwise. `max_layer_sparsity` limits the sparsity of a single layer (see `sparseq.prune.select_masks`). A layer
    that the pattern does not divide is an error, or stays dense with on_mismatch="skip".

    Hooks of every kind (their handles stay valid), attributes, requires_grad, ties, and a mask of
    `torch.nn.utils.prune` are carried over to the new layers. Everything that would be lost is refused before any layer
    is replaced, with a message that says what to do: computed weights (weight norm, parametrizations), parameters and
    methods set on a layer, hooks of accelerate, adapters of peft. A warning names the kinds of layers that have no
    quantized form and are left unchanged. scale="lsq" adds parameters, so create the optimizer afterwards.

    Raises InputError for settings out of range, for names that match no layer, and for NaN or Inf in the weights.
    """
    pattern = Pattern.parse(pattern)
    pattern.check_sparsity(sparsity)
    settings = QuantSettings(bits, activation, scale)
    of_embeddings = settings if embedding_bits is None else QuantSettings(embedding_bits)
    scope = scope_for(scope, pattern)
    check_share("max_layer_sparsity", max_layer_sparsity)
    choice("on_mismatch", on_mismatch, ON_MISMATCH)
    include, exclude = selectors("include", include), selectors("exclude", exclude)
    check_unwrapped(model)
    picked = _pick(model, include, exclude)
    left = left_out(model, include, exclude)
    if not picked:
        if any(named_layers(model)):
            raise InputError("the model is converted already, and has nothing left to convert")
        raise InputError(
            f"no nn.Linear or nn.Embedding of the model matches include={shown(include)}, exclude={shown(exclude)}"
            f"{f', and {left} have no quantized form' if left else ''}: see the names with model.named_modules()"
        )
    check_no_adapters(model, picked)
    check_no_offload(model)
    check_not_held_elsewhere(model, picked)
    for name, module in picked.items():
        check_attached(module, name)
    if of_embeddings.bits != bits:
        _check_untied(picked, bits, embedding_bits)
    check_finite(model)
    names: list[str] = []
    if sparsity:
        names = prunable_names(model, picked, prune_embeddings, any(isinstance(s, str) for s in include))
        if not names:
            raise InputError(why_none(model, picked) + (f" ({left} have no quantized form)" if left else ""))
        names = _check_pattern(picked, names, pattern, on_mismatch)
    if left:
        warnings.warn(
            f"convert leaves {left} as they are: nn.Linear and nn.Embedding have quantized forms, other kinds have "
            "none here; name them in exclude= if that is meant",
            stacklevel=2,
        )
    made = _swap(model, picked, settings, of_embeddings, pattern)
    if names:
        layers = dividing({name: made[name] for name in names}, pattern, on_mismatch)
        weights = {name: layer.weight for name, layer in layers.items()}
        for name, mask in select_masks(weights, sparsity, pattern, scope, max_layer_sparsity).items():
            layers[name].set_mask(mask)
    return made.get("", attach_quantizer(model))


def _pick(model: nn.Module, include: tuple[Selector, ...], exclude: tuple[Selector, ...]) -> dict[str, nn.Module]:
    """The layers to replace, under all their names."""
    fused = inside_fused_attention(model)
    return {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if name not in fused and _swappable(module) and chosen(name, module, include, exclude)
    }


def _check_pattern(picked: dict[str, nn.Module], names: list[str], pattern: Pattern, on_mismatch: str) -> list[str]:
    """The names of the layers that the pattern divides.

    Raises InputError if it does not divide one and that is an error, and if it divides none.
    """
    shapes = {name: tuple(picked[name].weight.shape) for name in names}  # type: ignore[arg-type]
    if on_mismatch == "error":
        for name, shape in shapes.items():
            pattern.check(shape, name)
    divided = [name for name, shape in shapes.items() if pattern.divides(shape)]
    if not divided:
        raise InputError(
            f"there is nothing to prune: pattern {pattern} divides none of the {len(shapes)} prunable layers among "
            "those converted"
        )
    return divided


def _check_untied(picked: dict[str, nn.Module], bits: int | None, embedding_bits: int | None) -> None:
    """Raises InputError if a linear layer has the weight of an embedding, which would be quantized in two ways."""
    tables = {id(module.weight): name for name, module in picked.items() if isinstance(module, nn.Embedding)}
    for name, module in picked.items():
        table = tables.get(id(module.weight))
        if isinstance(module, nn.Linear) and table is not None:
            raise InputError(
                f"{name!r} and embedding {table!r} share one weight, which cannot have {bits or 'no'} bits in one and "
                f"{embedding_bits} in the other: leave embedding_bits out, or leave {name!r} out with exclude="
            )


def _swap(
    model: nn.Module,
    picked: dict[str, nn.Module],
    settings: QuantSettings,
    of_embeddings: QuantSettings,
    pattern: Pattern,
) -> dict[str, QuantSparseLinear | QuantEmbedding]:
    """Puts the new layers into the model, and returns them by name."""
    made: dict[int, QuantSparseLinear | QuantEmbedding] = {}
    first: dict[int, QuantSparseLinear] = {}
    for name, old in picked.items():
        if id(old) not in made:
            own = settings if isinstance(old, nn.Linear) else of_embeddings
            new = made[id(old)] = _quantized(old, own, pattern)
            if isinstance(new, QuantSparseLinear):  # A shared weight has one scale.
                new.step_size = first.setdefault(id(new.weight), new).step_size
        if name:
            _replace(model, name, made[id(old)])
    return {name: made[id(old)] for name, old in picked.items()}


def _swappable(module: nn.Module) -> bool:
    # Exactly these types: a subclass may compute something else, which would be lost. Subclasses that torch makes for a
    # parametrization or a lazy module are included here, and refused later.
    if isinstance(module, nn.Linear | nn.Embedding) and not isinstance(module, MaskedWeight):
        lazy = isinstance(module, nn.LazyLinear)
        return lazy or type(module) in (nn.Linear, nn.Embedding) or hasattr(module, "parametrizations")
    return False


def _quantized(module: nn.Module, settings: QuantSettings, pattern: Pattern) -> QuantSparseLinear | QuantEmbedding:
    if isinstance(module, nn.Linear):
        return QuantSparseLinear.from_linear(
            module, bits=settings.bits, activation=settings.activation, scale=settings.scale, pattern=pattern
        )
    assert isinstance(module, nn.Embedding)
    return QuantEmbedding.from_embedding(module, bits=settings.bits, pattern=pattern)


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)
