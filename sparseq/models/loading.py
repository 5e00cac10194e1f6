"""Loading pretrained encoders with a classification head, and tokenizers, by size, hub id or folder."""

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
from sparseq.extras import naming_extra
from sparseq.nn import check_finite
from sparseq.paths import expanded
from sparseq.reading import brief

from .cutting import keep_layers
from .heads import check_head, no_head
from .sizes import SIZES

__all__ = ["load_model", "load_tokenizer"]


@naming_extra("hf")
def load_model(
    name_or_path: str | Path,
    *,
    num_labels: int,
    label_names: Sequence[str] | None = None,
    regression: bool = False,
    layers: int | Sequence[int] | None = None,
    teacher: bool = False,
    trained: bool = False,
) -> tuple[nn.Module, Any]:
    """Loads a sequence classifier (in fp32 and eval mode) and its tokenizer.

    name_or_path: one of the six sizes, a hub id or a local folder. layers: keep that many blocks, evenly spaced from
    the first to the last (3 of 6: 0, 2, 5), or exactly the listed ones. A copy in the hub's local cache is preferred to
    the hub. A student (`teacher=False`) gets a new head, drawn from torch's global generator, if the checkpoint has
    none or one for another number of labels; with `trained` it must have a trained one for the task. So must a teacher,
    which may be a folder written by `sparseq.save`, quantized or packed, that is loaded unchanged (`layers` does not
    apply).

    Raises InputError if nothing is found (saying what to do), if weights do not match or are not finite, if there is no
    vocabulary, for invalid `layers`, for a teacher or a `trained` student without a suitable head, and for a packed or
    quantized folder as a student.
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

    head_of = "teacher" if teacher else "model" if trained else None

    def fetch(local_only: bool) -> tuple[nn.Module, Any]:
        with _quiet(bars=not local_only):
            model = _from_pretrained(source, num_labels, label_names, regression, head_of, local_only)
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
                raise InputError(f"{source} cannot be downloaded from the hub ({brief(error)})") from error
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


@naming_extra("hf")
def load_tokenizer(name_or_path: str | Path, *, local_only: bool = True) -> Any:
    """The tokenizer of a folder or hub id.

    Raises InputError if a folder has none (transformers would make an empty one), and OSError if a hub id cannot be
    downloaded.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(name_or_path), local_files_only=local_only, trust_remote_code=False
        )
    except Exception as error:  # the tokenizers library raises plain Exceptions, and transformers any kind
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
    head_of: str | None,
    local_only: bool,
) -> nn.Module:
    """Loads the model with transformers.

    head_of: what the model is called in messages if it must have a trained head for the labels, else None.

    An OSError for a hub id without a local copy passes through; other errors become InputError.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    is_folder = os.path.isdir(source)
    try:
        config = AutoConfig.from_pretrained(source, local_files_only=local_only, trust_remote_code=False)
        if head_of:
            check_head(config, source, num_labels, label_names, regression=regression, what=head_of)
        if head_of != "teacher":
            config.num_labels = num_labels
            if label_names is not None:
                config.id2label = dict(enumerate(label_names))
                config.label2id = {label: i for i, label in enumerate(label_names)}
        config.problem_type = "regression" if regression else "single_label_classification"
        model, info = AutoModelForSequenceClassification.from_pretrained(
            source,
            config=config,
            local_files_only=local_only,
            trust_remote_code=False,  # otherwise transformers asks whether to run code of the folder
            ignore_mismatched_sizes=not head_of,
            output_loading_info=True,
            dtype=torch.float32,
        )
    except InputError:
        raise
    except Exception as error:  # transformers raises any kind of error for a bad config or header
        if isinstance(error, OSError) and not is_folder:
            raise
        raise InputError(f"the model of {source} cannot be read ({_why(error)})") from error
    body = f"{model.base_model_prefix}."
    missing = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
    misfits = sorted(key for key in missing if head_of or (key.startswith(body) and ".pooler." not in key))
    if misfits and head_of and not any(key.startswith(body) and ".pooler." not in key for key in misfits):
        raise no_head(source, head_of)
    if misfits:
        raise InputError(f"the weights of {source} do not fit its config.json: {misfits[0]} is missing or misshapen")
    return model


def _why(error: Exception) -> str:
    """The problem with a model's files, in words for their owner."""
    if isinstance(error, pickle.UnpicklingError):  # torch's message explains how to run the code in the file
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
    """Makes one quick request before transformers' slow retries.

    Raises InputError if the hub is unreachable or has no such id.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        HfApi().model_info(source, timeout=10)
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise InputError(
            f"there is no model {name!r}: neither a folder here, nor on the Hugging Face hub, nor one of the sizes "
            f"{', '.join(SIZES)}"
        ) from error
    except Exception as error:  # the hub's client raises errors of its HTTP library, which differ by version
        raise InputError(
            f"the model {source!r} is not in the local cache and the Hugging Face hub cannot be reached; connect once "
            "to have it cached, or give the path of a folder with config.json, model.safetensors and the tokenizer"
        ) from error


@contextlib.contextmanager
def _quiet(bars: bool) -> Iterator[None]:
    """Silences transformers' report of newly initialised weights (a new head is intended), and its progress bars."""
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
