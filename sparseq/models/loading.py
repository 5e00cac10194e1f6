"""Pretrained encoders with a classification head, and their tokenizers, from a size's name, a hub id or a folder."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparseq import checkpoint
from sparseq.errors import InputError
from sparseq.nn import check_finite
from sparseq.paths import expanded
from sparseq.reading import brief

from .cutting import keep_layers
from .heads import check_head, no_head
from .sizes import SIZES

__all__ = ["load_model", "load_tokenizer"]


def load_model(
    name_or_path: str | Path,
    *,
    num_labels: int,
    label_names: Sequence[str] | None = None,
    regression: bool = False,
    layers: int | Sequence[int] | None = None,
    teacher: bool = False,
) -> tuple[nn.Module, Any]:
    """(sequence classifier in fp32 and eval mode, tokenizer) from one of the six sizes, a hub id or a local folder.

    layers: keep that many evenly spaced blocks (3 of 6: 0, 2, 4), or exactly the listed ones. A local copy in the hub's
    cache is used before the hub is asked. A student (`teacher=False`) gets a new head where the checkpoint has none or
    one for another number of labels, drawn from torch's global generator; a teacher must bring a trained head that
    fits, and may be a folder that `sparseq.save` wrote, quantized or packed (taken whole, `layers` does not apply).
    InputError: nothing found (with the ways out), weights that do not fit or are not finite, no vocabulary, bad
    `layers`, a teacher without a fitting head, a packed or quantized folder as a student.
    """
    name = str(name_or_path)
    if regression and num_labels != 1:
        raise InputError(f"regression has exactly one output, but num_labels is {num_labels}")
    if label_names is not None and len(label_names) != num_labels:
        raise InputError(f"{len(label_names)} label names were given for {num_labels} labels")
    folder = expanded(name)
    source = SIZES[name].hub_name if name in SIZES and not os.path.isdir(folder) else name
    if os.path.isdir(folder):
        source = str(folder)
        if not os.path.isfile(folder / checkpoint.CONFIG):
            raise InputError(f"the folder {folder} holds no config.json; a model folder needs it beside its weights")
        if checkpoint.is_saved(folder):
            if checkpoint.layer_names(folder):
                model = _load_compressed(folder, num_labels, label_names, regression, teacher)
                return model, load_tokenizer(folder)
            checkpoint.verify(folder)
    elif name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise InputError(
            f"there is no folder {name}; give a local model folder, a hub id, or one of {', '.join(SIZES)}"
        )

    def fetch(local_only: bool) -> tuple[nn.Module, Any]:
        with _quiet(bars=not local_only):
            model = _from_pretrained(source, num_labels, label_names, regression, teacher, local_only)
            return model, load_tokenizer(source, local_only=local_only)

    if os.path.isdir(folder):
        model, tokenizer = fetch(True)
    else:
        try:
            model, tokenizer = fetch(True)
        except OSError:
            _ask_hub(name, source)
            try:
                model, tokenizer = fetch(False)
            except OSError as error:
                raise InputError(f"{source} cannot be had from the hub ({brief(error)})") from error
    if len(tokenizer) > model.config.vocab_size:  # type: ignore[union-attr, operator]
        raise InputError(
            f"the tokenizer of {name} has {len(tokenizer)} tokens but the model embeds only "
            f"{model.config.vocab_size}; they belong to different models"  # type: ignore[union-attr]
        )
    try:
        check_finite(model)
    except InputError as error:
        raise InputError(f"the model of {name} cannot be used: {error}") from error
    if layers is not None:
        keep_layers(model, layers)
    return model.eval(), tokenizer


def load_tokenizer(name_or_path: str | Path, *, local_only: bool = True) -> Any:
    """The tokenizer of a folder or hub id; InputError where a folder has none (transformers would make an empty one),
    OSError where a hub id cannot be had."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(name_or_path), local_files_only=local_only, trust_remote_code=False
        )
    except Exception as error:  # the tokenizers library raises bare Exceptions, transformers whatever a file leads to
        if isinstance(error, OSError) and not os.path.isdir(name_or_path):
            raise
        raise InputError(f"the tokenizer of {name_or_path} cannot be read ({brief(error)})") from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise InputError(
            f"{name_or_path} holds no tokenizer; its tokenizer.json or vocab.txt belongs beside the weights"
        )
    return tokenizer


def _from_pretrained(
    source: str,
    num_labels: int,
    label_names: Sequence[str] | None,
    regression: bool,
    teacher: bool,
    local_only: bool,
) -> nn.Module:
    """OSError passes through where it says that a hub id has no local copy; all else that goes wrong is InputError."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    is_folder = os.path.isdir(source)
    try:
        config = AutoConfig.from_pretrained(source, local_files_only=local_only, trust_remote_code=False)
        if teacher:
            check_head(config, source, num_labels, label_names, regression=regression)
        else:
            config.num_labels = num_labels
            if label_names is not None:
                config.id2label = dict(enumerate(label_names))
                config.label2id = {label: i for i, label in enumerate(label_names)}
        config.problem_type = "regression" if regression else "single_label_classification"
        model, info = AutoModelForSequenceClassification.from_pretrained(
            source,
            config=config,
            local_files_only=local_only,
            trust_remote_code=False,  # asked, transformers would offer to run what the folder says
            ignore_mismatched_sizes=not teacher,
            output_loading_info=True,
            dtype=torch.float32,
        )
    except InputError:
        raise
    except Exception as error:  # transformers raises whatever a config or a header leads to
        if isinstance(error, OSError) and not is_folder:
            raise
        raise InputError(f"the model of {source} cannot be read ({_why(error)})") from error
    body = f"{model.base_model_prefix}."
    missing = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
    misfits = sorted(key for key in missing if teacher or (key.startswith(body) and ".pooler." not in key))
    if misfits and teacher and not any(key.startswith(body) and ".pooler." not in key for key in misfits):
        raise no_head(source)
    if misfits:
        raise InputError(f"the weights of {source} do not fit its config.json: {misfits[0]} is missing or misshapen")
    return model


def _why(error: Exception) -> str:
    """What is wrong with a model's files, in words for whoever has them."""
    if isinstance(error, pickle.UnpicklingError):  # torch's own words tell how to run the code in it
        return "a file of its weights holds more than tensors, which is not loaded: save them as safetensors"
    if isinstance(error, KeyError):
        return f"its config.json names {error}, which transformers does not know"
    return brief(error)


def _load_compressed(
    folder: Path, num_labels: int, label_names: Sequence[str] | None, regression: bool, teacher: bool
) -> nn.Module:
    if not teacher:
        raise InputError(f"{folder} holds an already compressed model; a student starts from plain fp32 weights")
    model = checkpoint.load(folder)
    check_head(model.config, str(folder), num_labels, label_names, regression=regression)
    return model


def _ask_hub(name: str, source: str) -> None:
    """One quick request before transformers' slow retries; InputError: hub out of reach, or no such id there."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        HfApi().model_info(source, timeout=10)
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise InputError(
            f"there is no model {name!r}: neither a folder here, nor on the Hugging Face hub, nor one of the sizes "
            f"{', '.join(SIZES)}"
        ) from error
    except Exception as error:  # the hub's client raises its HTTP library's own errors, which differ by version
        raise InputError(
            f"the model {source!r} is not in the local cache and the Hugging Face hub cannot be reached; connect once "
            "to have it cached, or give the path of a folder with config.json, model.safetensors and the tokenizer"
        ) from error


@contextlib.contextmanager
def _quiet(bars: bool) -> Iterator[None]:
    """Silences transformers' table of newly initialised weights (a student's new head is meant), perhaps its bars."""
    from transformers.utils import logging

    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()
