"""Smaller vocabularies: a tokenizer and a model without the tokens that a task does not need."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparseq.errors import InputError

from .loading import load_tokenizer

__all__ = ["keep_rows", "kept_tokens", "smaller_tokenizer"]

TOKENIZER, SETTINGS = "tokenizer.json", "tokenizer_config.json"


def kept_tokens(tokenizer: Any, model: nn.Module, seen: Collection[int], name: str) -> list[int]:
    """The ids of the tokens that stay, ascending: those `seen`, and those without which some text could not be read.

    These are the special and added tokens, those that the model's config names, and each piece of a single character,
    at the beginning of a word or within (`##`). WordPiece takes the longest piece that fits, from left to right, and
    gives the unknown token for a word of which some part begins with no piece. So texts whose tokens were all `seen`
    give the same tokens as before, and where each character of a piece is a piece of its own, as in BERT's
    vocabularies, the unknown token stands for the same words as before. In other vocabularies each piece with another
    character stays, too. Tokens up to the padding stay, so that its id does: models count positions from it.

    Raises InputError, with the `name` of the model, for a tokenizer that is not WordPiece.
    """
    spec = _spec(tokenizer, name)
    vocabulary: dict[str, int] = spec["model"]["vocab"]
    prefix = spec["model"]["continuing_subword_prefix"]
    first = {piece for piece in vocabulary if len(piece) == 1}
    within = {piece[len(prefix) :] for piece in vocabulary if piece.startswith(prefix) and len(piece) > len(prefix)}
    within = {character for character in within if len(character) == 1}
    kept = {
        number
        for piece, number in vocabulary.items()
        if _characters(piece, prefix) == 1 or not _spelled(piece, prefix, first, within)
    }
    kept |= set(tokenizer.all_special_ids)
    kept |= {vocabulary[unknown] for unknown in (spec["model"]["unk_token"],) if unknown in vocabulary}
    kept |= {number for _, numbers in _named_ids(model.config) for number in numbers}

    def note(number: int) -> int:
        kept.add(number)
        return number

    _exchange_ids(spec, note, name)
    kept |= set(seen) | set(range(1 + max(_paddings(tokenizer, model), default=-1)))
    return sorted(kept & set(tokenizer.get_vocab().values()))


def smaller_tokenizer(tokenizer: Any, kept: Sequence[int], name: str) -> Any:
    """The same tokenizer with only the tokens `kept`, numbered from 0 in this order.

    kept: ascending, as `kept_tokens` gives them. Raises InputError for a tokenizer that cannot be made so.
    """
    new = {old: number for number, old in enumerate(kept)}

    def renumbered(number: int) -> int:
        if number not in new:
            raise InputError(f"the tokenizer of {name} cannot be made smaller: it names {number}, which is no token")
        return new[number]

    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        path, settings = Path(folder) / TOKENIZER, Path(folder) / SETTINGS
        spec = json.loads(path.read_text(encoding="utf-8"))
        model = spec["model"]
        model["vocab"] = {token: new[number] for token, number in model["vocab"].items() if number in new}
        _exchange_ids(spec, renumbered, name)
        path.write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
        values = json.loads(settings.read_text(encoding="utf-8"))
        if "added_tokens_decoder" in values:
            tokens = values["added_tokens_decoder"].items()
            values["added_tokens_decoder"] = {str(renumbered(int(number))): token for number, token in tokens}
            settings.write_text(json.dumps(values), encoding="utf-8")
        smaller = load_tokenizer(folder)
    smaller.name_or_path = tokenizer.name_or_path
    wanted = {token: new[number] for token, number in tokenizer.get_vocab().items() if number in new}
    if smaller.get_vocab() != wanted:
        raise InputError(f"the tokenizer of {name} cannot be made smaller: it adds tokens of its own when it is loaded")
    return smaller


def keep_rows(model: nn.Module, kept: Sequence[int], name: str) -> None:
    """Removes from a transformers model the rows of all tokens but those `kept`, in place.

    The rows of its input embedding, and the ids in its config, are those of `smaller_tokenizer`. Raises InputError for
    a model that uses the weight of its embedding elsewhere, or has none of the config's `vocab_size`.
    """
    config: Any = model.config
    table = model.get_input_embeddings()  # type: ignore[operator]
    if type(table) is not nn.Embedding or table.num_embeddings != getattr(config, "vocab_size", None):
        raise InputError(f"the vocabulary of {name} cannot be made smaller: it has no plain embedding of its tokens")
    owners = [module for module in model.modules() if any(p is table.weight for p in module._parameters.values())]
    if owners != [table]:
        raise InputError(f"the vocabulary of {name} cannot be made smaller: its embedding shares its weight")
    new = {old: number for number, old in enumerate(kept)}
    rows = table.weight.detach()[torch.tensor(kept, dtype=torch.int64)]
    table.weight = nn.Parameter(rows, table.weight.requires_grad)
    table.num_embeddings = len(kept)
    for entry, _ in list(_named_ids(config)):
        value = getattr(config, entry)
        setattr(config, entry, [new.get(one) for one in value] if isinstance(value, list) else new.get(value))
    config.vocab_size = len(kept)


def _spec(tokenizer: Any, name: str) -> dict[str, Any]:
    """The tokenizer as JSON. Raises InputError if it is not WordPiece."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    spec: dict[str, Any] = {} if backend is None else json.loads(backend.to_str())
    kind = spec["model"]["type"] if spec else "written in Python"
    if kind != "WordPiece":
        raise InputError(
            f"a vocabulary of seen tokens needs a WordPiece tokenizer, and that of {name} is {kind}: "
            "leave out --vocabulary seen"
        )
    return spec


def _spelled(piece: str, prefix: str, first: set[str], within: set[str]) -> bool:
    """Whether each character of the piece is a piece of its own, in its place."""
    if piece.startswith(prefix) and len(piece) > len(prefix):
        return all(character in within for character in piece[len(prefix) :])
    return piece[:1] in first and all(character in within for character in piece[1:])


def _characters(piece: str, prefix: str) -> int:
    return len(piece) - len(prefix) if piece.startswith(prefix) and len(piece) > len(prefix) else len(piece)


def _named_ids(config: Any) -> Iterator[tuple[str, list[int]]]:
    """(entry, ids) of everything in the config that names tokens of the vocabulary."""
    for entry, value in vars(config).items():
        ids = value if isinstance(value, list) else [value]
        if entry.endswith("_token_id") and all(type(one) is int and 0 <= one < config.vocab_size for one in ids):
            yield entry, ids


def _paddings(tokenizer: Any, model: nn.Module) -> list[int]:
    """Every id that stands for padding. Some models have one that neither their config nor the tokenizer names."""
    found = [tokenizer.pad_token_id, getattr(model.config, "pad_token_id", None)]
    found += [getattr(module, "padding_idx", None) for module in model.modules()]
    return [number for number in found if type(number) is int]


def _exchange_ids(spec: dict[str, Any], change: Callable[[int], int], name: str) -> None:
    """Exchanges the ids in a tokenizer's JSON outside its vocabulary, in place."""
    for token in spec["added_tokens"]:
        token["id"] = change(token["id"])
    if spec.get("padding") is not None:
        spec["padding"]["pad_id"] = change(spec["padding"]["pad_id"])
    if spec.get("post_processor") is not None:
        _exchange_in_processor(spec["post_processor"], change, name)


def _exchange_in_processor(processor: dict[str, Any], change: Callable[[int], int], name: str) -> None:
    kind = processor["type"]
    if kind == "Sequence":
        for part in processor["processors"]:
            _exchange_in_processor(part, change, name)
    elif kind == "TemplateProcessing":
        for token in processor["special_tokens"].values():
            token["ids"] = [change(number) for number in token["ids"]]
    elif kind in ("BertProcessing", "RobertaProcessing"):
        for place in ("sep", "cls"):
            token, number = processor[place]
            processor[place] = [token, change(number)]
    elif kind != "ByteLevel":  # which has no ids
        raise InputError(f"the tokenizer of {name} cannot be made smaller: its {kind} is not known here")
