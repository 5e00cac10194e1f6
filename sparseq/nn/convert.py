"""From a plain model to a quantized and pruned one, and from there to the packed one."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from sparseq_kernels import InputError, Pattern

from .check import check_finite
from .embedding import QuantEmbedding
from .linear import QuantSparseLinear
from .masking import MaskedWeight
from .packed import Packed, PackedEmbedding, Stored, pack_weight
from .packed_linear import PackedLinear
from .selection import ON_MISMATCH, SCOPES, choice, dividing, select_masks
from .settings import QuantSettings

LAYERS: dict[str, type[nn.Module]] = {
    cls.__name__: cls for cls in (QuantSparseLinear, QuantEmbedding, PackedLinear, PackedEmbedding)
}
Selector = type[nn.Module] | str


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
    chosen = [
        name
        for name, module in model.named_modules(remove_duplicate=False)
        if _swappable(module) and _chosen(name, module, include, exclude) and name not in fused
    ]
    if not chosen:
        if any(named_layers(model)):
            raise InputError("the model is converted already, and has nothing left to convert")
        raise InputError(
            f"no nn.Linear or nn.Embedding of the model matches include={_shown(include)}, exclude={_shown(exclude)}: "
            "see the names with model.named_modules()"
        )
    if sparsity:
        _check_prunable(model, chosen, pattern, prune_embeddings, on_mismatch)
    made: dict[int, nn.Module] = {}
    for name in chosen:
        old = model.get_submodule(name)
        new = made[id(old)] = made.get(id(old)) or _quantized(old, settings, pattern)
        if name == "":
            return _prune(new, sparsity, pattern, scope, prune_embeddings, on_mismatch)
        _replace(model, name, new)
    return _prune(model, sparsity, pattern, scope, prune_embeddings, on_mismatch)


def pack(model: nn.Module) -> nn.Module:
    """A copy of the model for inference, in eval mode, that shares nothing with it: each `QuantSparseLinear` and
    `QuantEmbedding` becomes its packed form, in the format that stores it in the fewest bytes.

    Raises InputError for NaN or Inf in the weights, and for static activations that were never calibrated.
    """
    check_finite(model)
    # Packed layers take the place of the training ones while copying, so that the big weights are not copied first.
    memo: dict[int, Any] = {}
    stored: dict[Any, Stored] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, QuantSparseLinear | QuantEmbedding):
            # Tied weights, such as an embedding's and a language model head's, are stored once if they are quantized
            # alike.
            learned = None if getattr(layer, "weight_scale", None) is None else id(layer.weight_scale)
            key = (id(layer.weight), id(layer.mask), layer.bits, layer.pattern, learned)
            if key not in stored:
                stored[key] = pack_weight(layer, None)
            kind = PackedLinear if isinstance(layer, QuantSparseLinear) else PackedEmbedding
            try:
                packed = kind.from_layer(layer, stored=stored[key])  # type: ignore[arg-type]
            except InputError as error:
                raise InputError(f"layer {name!r} cannot be packed: {error}") from error
            memo[id(layer)] = packed
            if isinstance(layer, QuantSparseLinear) and layer.bias is not None:
                assert isinstance(packed.bias, Tensor)
                memo[id(layer.bias)] = nn.Parameter(packed.bias, layer.bias.requires_grad)
    return copy.deepcopy(model, memo).eval()


def calibrate(model: nn.Module, batches: Iterable[Mapping[str, Any]]) -> nn.Module:
    """Sets the scales of static activations from the largest values that `batches` (keyword arguments of the model's
    forward) bring to each layer; returns the model. Scales that were set before are forgotten."""
    layers = [m for m in model.modules() if isinstance(m, QuantSparseLinear) and m.input_scale is not None]
    modes = [m.training for m in layers]

    def observe(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        assert isinstance(layer, QuantSparseLinear)
        layer._observe(args[0] if args else kwargs["input"])

    hooks = [m.register_forward_pre_hook(observe, with_kwargs=True) for m in layers]
    with torch.no_grad():
        for layer in layers:
            layer.input_scale.zero_()  # type: ignore[union-attr]
            layer.calibrated = False
        try:
            for batch in batches:
                model(**batch)
        finally:
            for hook, layer, mode in zip(hooks, layers, modes, strict=True):
                hook.remove()
                layer.training = mode
    return model


def named_layers(model: nn.Module) -> Iterator[tuple[str, MaskedWeight | Packed]]:
    """(name, layer) of sparseq's own layers in the model."""
    for name, module in model.named_modules():
        if isinstance(module, MaskedWeight | Packed):
            yield name, module


def prunable(
    model: nn.Module, *, embeddings: bool = False, include: Iterable[Selector] = (), exclude: Iterable[Selector] = ()
) -> dict[str, MaskedWeight]:
    """The layers that magnitude pruning acts on, by name: the linear layers inside numbered blocks, which are an
    encoder's (`encoder.layer.3.output.dense`) and not its pooler or head; all linear layers where a model has no such
    blocks; and the embeddings if asked for, which the paper found to harm accuracy significantly (Movva et al.
    2022)."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, MaskedWeight)}
    picked = _prunable_names(
        {name: isinstance(module, QuantSparseLinear) for name, module in layers.items()}, embeddings
    )
    include, exclude = tuple(include), tuple(exclude)
    return {n: layers[n] for n in picked if _chosen(n, layers[n], include, exclude)}


def _prunable_names(is_linear: Mapping[str, bool], embeddings: bool) -> list[str]:
    """Of the layers named (True for a linear one, False for an embedding) those that pruning acts on."""
    linear = [name for name, yes in is_linear.items() if yes]
    numbered = [name for name in linear if any(part.isdecimal() for part in name.split("."))]
    tables = [name for name, yes in is_linear.items() if not yes] if embeddings else []
    return (numbered or linear) + tables


def _check_prunable(model: nn.Module, chosen: list[str], pattern: Pattern, embeddings: bool, on_mismatch: str) -> None:
    """Raises InputError, before anything is swapped, where pruning could not act as asked."""
    modules = {name: model.get_submodule(name) for name in chosen}
    names = _prunable_names({name: isinstance(module, nn.Linear) for name, module in modules.items()}, embeddings)
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


def _chosen(name: str, module: nn.Module, include: tuple[Selector, ...], exclude: tuple[Selector, ...]) -> bool:
    """Types and names are two filters: without an included type every type passes, and so for names."""
    if any(_matches(name, module, selector) for selector in exclude):
        return False
    types = [s for s in include if not isinstance(s, str)]
    names = [s for s in include if isinstance(s, str)]
    return (not types or any(_matches(name, module, s) for s in types)) and (
        not names or any(_matches(name, module, s) for s in names)
    )


def _matches(name: str, module: nn.Module, selector: Selector) -> bool:
    return fnmatchcase(name, selector) if isinstance(selector, str) else isinstance(module, selector)


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


def _shown(selectors: tuple[Selector, ...]) -> str:
    return repr([s if isinstance(s, str) else s.__name__ for s in selectors])
