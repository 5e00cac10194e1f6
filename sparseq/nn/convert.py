"""From a plain model to a quantized and pruned one."""

from collections.abc import Iterable

from torch import nn

from sparseq_kernels import InputError, Pattern

from .check import check_finite
from .embedding import QuantEmbedding
from .layers import named_layers
from .linear import QuantSparseLinear
from .prunable import prunable, prunable_names
from .selection import ON_MISMATCH, SCOPES, choice, dividing, select_masks
from .selectors import Selector, chosen, shown
from .settings import QuantSettings


def convert(
    model: nn.Module,
    *,
    bits: int | None = 8,
    sparsity: float = 0.0,
    pattern: str | Pattern = "unstructured",
    include: Iterable[Selector] = (nn.Linear, nn.Embedding),
    exclude: Iterable[Selector] = (),
    activation: str = "dynamic",
    scale: str = "max",
    scope: str = "global",
    prune_embeddings: bool = False,
    on_mismatch: str = "error",
) -> nn.Module:
    """Swaps a model's linear layers and embeddings for their quantized forms, in place, and returns the model.

    include, exclude: module types (`nn.Linear`) or name patterns (`"encoder.*"`, as in fnmatch); a layer is swapped if
    its type and its name are included and neither is excluded. bits, activation, scale: see `QuantSparseLinear`;
    bits=None swaps without quantizing, for pruning alone. With a `sparsity` in (0, 1) it also prunes by magnitude, at
    once, the layers that `prunable` names: over all of them together (`scope="global"`) or each alone (`"layer"`). A
    layer that the pattern does not divide is an error, or with on_mismatch="skip" stays dense.

    Raises InputError for settings out of range, for names that match no layer, and for NaN or Inf in the weights.
    """
    pattern = Pattern.parse(pattern)
    pattern.check_sparsity(sparsity)
    settings = QuantSettings(bits, activation, scale)
    choice("scope", scope, SCOPES)
    choice("on_mismatch", on_mismatch, ON_MISMATCH)
    include, exclude = tuple(include), tuple(exclude)
    check_finite(model)
    fused = _inside_fused_attention(model)
    picked = [
        name
        for name, module in model.named_modules(remove_duplicate=False)
        if _swappable(module) and chosen(name, module, include, exclude) and name not in fused
    ]
    if not picked:
        if any(named_layers(model)):
            raise InputError("the model is converted already, and has nothing left to convert")
        raise InputError(
            f"no nn.Linear or nn.Embedding of the model matches include={shown(include)}, exclude={shown(exclude)}: "
            "see the names with model.named_modules()"
        )
    if sparsity:
        _check_prunable(model, picked, pattern, prune_embeddings, on_mismatch)
    made: dict[int, nn.Module] = {}
    for name in picked:
        old = model.get_submodule(name)
        new = made[id(old)] = made.get(id(old)) or _quantized(old, settings, pattern)
        if name == "":
            return _prune(new, sparsity, pattern, scope, prune_embeddings, on_mismatch)
        _replace(model, name, new)
    return _prune(model, sparsity, pattern, scope, prune_embeddings, on_mismatch)


def _check_prunable(model: nn.Module, chosen: list[str], pattern: Pattern, embeddings: bool, on_mismatch: str) -> None:
    """Raises InputError, before anything is swapped, where pruning could not act as asked."""
    modules = {name: model.get_submodule(name) for name in chosen}
    names = prunable_names({name: isinstance(module, nn.Linear) for name, module in modules.items()}, embeddings)
    shapes = {name: tuple(modules[name].weight.shape) for name in names}  # type: ignore[arg-type]
    if on_mismatch == "error":
        for name, shape in shapes.items():
            pattern.check(shape, name)
    if not any(pattern.divides(shape) for shape in shapes.values()):
        raise InputError(
            f"there is nothing to prune: pattern {pattern} divides none of the {len(shapes)} prunable layers among "
            "those converted"
        )


def _prune(
    model: nn.Module, sparsity: float, pattern: Pattern, scope: str, embeddings: bool, on_mismatch: str
) -> nn.Module:
    if sparsity:
        layers = dividing(prunable(model, embeddings=embeddings), pattern, on_mismatch)
        masks = select_masks({n: m.weight for n, m in layers.items()}, sparsity, pattern, scope)
        for name, mask in masks.items():
            layers[name].set_mask(mask)
    return model


def _swappable(module: nn.Module) -> bool:
    # Exactly these types: a subclass computes something else, and swapping it would lose that.
    return type(module) in (nn.Linear, nn.Embedding)


def _quantized(module: nn.Module, settings: QuantSettings, pattern: Pattern) -> nn.Module:
    if isinstance(module, nn.Linear):
        return QuantSparseLinear.from_linear(
            module, bits=settings.bits, activation=settings.activation, scale=settings.scale, pattern=pattern
        )
    assert isinstance(module, nn.Embedding)
    return QuantEmbedding.from_embedding(module, bits=settings.bits, pattern=pattern)


def _inside_fused_attention(model: nn.Module) -> set[str]:
    """Layers whose weights `nn.MultiheadAttention` and the fused encoder layer read without calling them."""
    fused = (nn.MultiheadAttention, nn.TransformerEncoderLayer)
    return {
        f"{name}.{child}" if name else child
        for name, module in model.named_modules()
        if isinstance(module, fused)
        for child, _ in module.named_modules()
        if child
    }


def _replace(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)
