"""A trial on one row, before training, of what a run needs of its models: reading, packing, saving and loading.

Models differ in how they number positions, in which entries of their configurations are lists with one entry per layer,
and in what they keep outside their state. A trial is reliable; inspecting configurations is not.
"""

from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn

from sparseq import checkpoint
from sparseq.errors import InputError
from sparseq.failures import is_out_of_memory
from sparseq.nn import QuantEmbedding, QuantSparseLinear, named_layers, pack, prunable
from sparseq.nn.selection import dividing, select_masks
from sparseq.reading import brief
from sparseq_kernels.patterns import Pattern

from .data import tokenise
from .precision import arithmetic
from .recipe import Recipe

Row = dict[str, Tensor]
"""The inputs of one text or pair, by name: int64 [1, tokens]."""

# Between the logits of a model and of the same model rebuilt, whose attention kernel may sum in another order.
TOLERANCE = 1e-3


def check_reads(
    model: nn.Module, tokenizer: Any, max_length: int, *, pairs: bool, num_labels: int, name: str
) -> tuple[Row, Tensor]:
    """A row truncated at `max_length` tokens, and the model's logits for it, fp32 [1, num_labels].

    Raises InputError if the model has too few positions (saying how many it has), if it cannot read the output of the
    tokenizer, if the tokenizer cannot pad, and if the logits have another shape. The model is left in eval mode.
    """
    if tokenizer.pad_token is None:
        raise InputError(
            f"the tokenizer of {name} has no padding token, and texts of different lengths cannot be read together: "
            "name one as pad_token in its tokenizer_config.json"
        )
    stated = getattr(model.config, "max_position_embeddings", None) or 0
    limit = min(max_length, tokenizer.model_max_length, *([stated] if stated > 0 else []))
    shown = max(limit, 4)  # the special tokens of a pair, and a word
    text = " ".join(["a"] * shown)
    columns = {"text_a": [text], **({"text_b": [text]} if pairs else {})}
    encoded = tokenise(Dataset.from_dict(columns), tokenizer, shown, model)[0]
    row = {key: torch.tensor([values]) for key, values in encoded.items()}
    if limit == max_length and (logits := _logits(model, row)) is not None:
        if logits.shape != (1, num_labels):
            raise InputError(f"{name} gives logits of shape {list(logits.shape)} for a text, not [1, {num_labels}]")
        return row, logits
    longest = _longest(model, row, limit)
    if not longest:
        raise InputError(f"{name} cannot read what its tokenizer gives: they belong to different models")
    raise InputError(f"--max-length {max_length} is more than the {longest} tokens that {name} can read")


def check_rebuilds(model: nn.Module, row: Row, logits: Tensor, name: str) -> None:
    """Raises InputError unless the model would be the same after saving and loading. Nothing is written."""
    again = _rebuilt(model, name)  # for example, ModernBERT's first layer has one norm less than the others
    found = _logits(again, row)
    same = found is not None and torch.allclose(found, logits, rtol=TOLERANCE, atol=TOLERANCE)
    if logits.isfinite().all() and not same:
        raise InputError(
            f"{name} would give other logits once saved and loaded back: {type(model).__name__} keeps something that "
            "is neither among its tensors nor in its configuration; leave out --layers, or use another model"
        )


def check_packs(model: nn.Module, recipe: Recipe) -> None:
    """Raises InputError if the converted model could not be saved and loaded, or not be packed.

    One layer of each shape is tried, pruned as the recipe says.
    """
    _rebuilt(model, str(recipe.model))
    pattern = Pattern.parse(recipe.pattern)
    pruned: dict[str, Any] = {}
    if recipe.uses("mp"):
        pruned = dividing(prunable(model, embeddings=recipe.prune_embeddings), pattern, recipe.on_mismatch)
    tried = set()
    for name, layer in named_layers(model):
        if not isinstance(layer, QuantSparseLinear | QuantEmbedding):
            continue
        kind = (type(layer), str(layer.settings()), name in pruned)
        if kind in tried:
            continue
        tried.add(kind)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            sample: Any = type(layer).from_settings(layer.settings())
            sample.load_state_dict(layer.state_dict())
            if getattr(sample, "input_scale", None) is not None:
                sample.input_scale.fill_(1.0)
            if name in pruned:
                sample.set_mask(select_masks({name: sample.weight}, recipe.sparsity, pattern, "layer")[name])
            try:
                pack(nn.Sequential(sample))
            except InputError as error:
                raise InputError(f"layer {name!r} could not be packed after training: {error}") from error


def _rebuilt(model: nn.Module, name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        try:
            return checkpoint.rebuilt(model)
        except Exception as error:  # configurations have their own checks
            if is_out_of_memory(error):
                raise
            raise InputError(
                f"{name} could not be saved and loaded back after training ({brief(error)}): keep its first layer "
                "as the first (such as --layers 0,3), leave out --layers, or use another model"
            ) from error


def _longest(model: nn.Module, row: Row, limit: int) -> int:
    """The largest number of tokens, up to `limit`, that the model accepts; 0 if it accepts none."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if _logits(model, {name: values[:, :middle] for name, values in row.items()}) is None:
            high = middle - 1
        else:
            low = middle
    return low


def _logits(model: nn.Module, row: Row) -> Tensor | None:
    """The logits in fp32; None if the forward fails for any reason."""
    try:
        with torch.no_grad(), arithmetic(row["input_ids"].device):
            logits: Tensor = model.eval()(**row).logits
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return None
    return logits.float()
