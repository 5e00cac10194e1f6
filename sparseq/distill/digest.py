"""Digests (sha256) of what determines a model's outputs: texts, tokenizer, weights and computation."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

# Entries of a transformers configuration about its origin, which the outputs do not depend on.
_NOT_BEHAVIOUR = ("_name_or_path", "_commit_hash", "transformers_version")
# Entries of a tokenizers.Tokenizer that each call sets again.
_OF_THE_LAST_CALL = ("truncation", "padding")
# Arguments of a Python tokenizer about its origin.
_OF_THE_FOLDER = ("name_or_path", "is_local", "local_files_only", "cache_dir", "_commit_hash", "token")
_TOKENIZER_SETTINGS = (
    "model_input_names", "padding_side", "truncation_side", "special_tokens_map", "clean_up_tokenization_spaces",
    "split_special_tokens",
)  # fmt: skip


def digest_texts(columns: Iterable[Sequence[str]]) -> str:
    """sha256 of the rows' texts, in order: `columns` holds the one or two text columns."""
    found = hashlib.sha256()
    for column in columns:
        found.update(f"{len(column)}\n".encode())
        for text in column:
            found.update(json.dumps(text).encode() + b"\n")
    return found.hexdigest()


def digest_model(model: nn.Module) -> str:
    """sha256 of a model: its parameters and buffers, its modules with their settings, and its configuration.

    Parameters and buffers count with name, dtype, shape and values. Two models with the same digest give the same
    outputs.
    """
    found = hashlib.sha256(f"{type(model).__qualname__}\n{model!r}\n".encode())
    config = getattr(model, "config", None)
    if config is not None:
        settings = config.to_dict()
        found.update(_json({name: value for name, value in settings.items() if name not in _NOT_BEHAVIOUR}))
    for name, tensor in sorted(model.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def digest_tokenizer(tokenizer: Any) -> str:
    """sha256 of everything that determines the numbers that a tokenizer makes of a text.

    That is vocabulary, normalizer, pre-tokenizer, post-processor, added and special tokens, the sides of padding and
    truncation, and the inputs that it returns.
    """
    settings = {name: getattr(tokenizer, name, None) for name in _TOKENIZER_SETTINGS}
    found = hashlib.sha256(_json({**settings, "class": type(tokenizer).__qualname__}))
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        whole = json.loads(backend.to_str())
        found.update(_json({name: value for name, value in whole.items() if name not in _OF_THE_LAST_CALL}))
    else:  # a Python tokenizer, which only gives its settings and vocabulary
        added = {number: str(token) for number, token in tokenizer.added_tokens_decoder.items()}
        found.update(_json([_python_settings(tokenizer), tokenizer.get_vocab(), added]))
    return found.hexdigest()


def _python_settings(tokenizer: Any) -> dict[str, Any]:
    """The arguments that a Python tokenizer was made with; files, such as merges of BPE, count by content, not path."""
    settings = {
        name: value
        for name, value in tokenizer.init_kwargs.items()
        if name not in _OF_THE_FOLDER and not name.endswith("_file")
    }
    files = {name: _digest_file(getattr(tokenizer, name, None)) for name in tokenizer.vocab_files_names}
    return {**settings, "files": files}


def _digest_file(path: Any) -> str | None:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except (OSError, TypeError, ValueError):
        return None


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()
