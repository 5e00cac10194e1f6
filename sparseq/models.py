"""The six BERT sizes with their parameter counts in closed form, and pretrained encoders with a classification head.

The sizes and counts need nothing but Python; `config_for` and `load_model` import transformers when called.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparseq import checkpoint
from sparseq.errors import InputError
from sparseq.nn import check_finite
from sparseq.paths import expanded
from sparseq.reading import brief

__all__ = ["SIZES", "ParameterCounts", "SizeSpec", "config_for", "count", "keep_layers", "load_model", "load_tokenizer"]

BERT_VOCABULARY = 30522


@dataclass(frozen=True)
class ParameterCounts:
    """How many parameters a BERT has.

    total: `BertModel` with pooler. with_mlm_head: the same plus a masked-language-model head whose vocabulary-by-hidden
    decoder is not tied to the word embedding; the paper quotes this count. encoder_linear_weights: weights (no biases)
    of the six linear layers of every block, which is what magnitude pruning acts on.
    """

    total: int
    with_mlm_head: int
    encoder_linear_weights: int

    @property
    def prunable_share(self) -> float:
        """Encoder linear weights as a fraction of `total`."""
        return self.encoder_linear_weights / self.total


@dataclass(frozen=True)
class SizeSpec:
    """Shape of a BERT encoder; `feed_forward` is four times `hidden` unless given."""

    layers: int
    hidden: int
    heads: int
    hub_name: str = ""
    feed_forward: int | None = None
    vocabulary: int = BERT_VOCABULARY
    positions: int = 512
    token_types: int = 2

    @property
    def intermediate(self) -> int:
        return self.feed_forward or 4 * self.hidden

    def counts(self) -> ParameterCounts:
        """Closed form, from BERT's architecture (Devlin et al. 2019)."""
        h, f, v = self.hidden, self.intermediate, self.vocabulary
        norm = 2 * h
        block_weights = 4 * h * h + 2 * h * f
        block = block_weights + (4 * h + f + h) + 2 * norm
        embeddings = (v + self.positions + self.token_types) * h + norm
        total = embeddings + self.layers * block + (h * h + h)
        mlm_head = (h * h + h + norm) + (v * h + v)
        return ParameterCounts(total, total + mlm_head, self.layers * block_weights)


SIZES: dict[str, SizeSpec] = {
    "tiny": SizeSpec(2, 128, 2, "google/bert_uncased_L-2_H-128_A-2"),
    "mini": SizeSpec(4, 256, 4, "google/bert_uncased_L-4_H-256_A-4"),
    "small": SizeSpec(4, 512, 8, "google/bert_uncased_L-4_H-512_A-8"),
    "medium": SizeSpec(8, 512, 8, "google/bert_uncased_L-8_H-512_A-8"),
    "base": SizeSpec(12, 768, 12, "bert-base-uncased"),
    "large": SizeSpec(24, 1024, 16, "bert-large-uncased"),
}


def config_for(size: str) -> Any:
    """The `transformers.BertConfig` of one of the six sizes; InputError for another name."""
    from transformers import BertConfig

    if size not in SIZES:
        raise InputError(f"there is no size {size!r}; the sizes are {', '.join(SIZES)}")
    spec = SIZES[size]
    return BertConfig(
        vocab_size=spec.vocabulary,
        hidden_size=spec.hidden,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        intermediate_size=spec.intermediate,
        max_position_embeddings=spec.positions,
        type_vocab_size=spec.token_types,
    )


def count(config: Any) -> ParameterCounts:
    """Parameter counts of a `SizeSpec` or of a BERT-shaped transformers config (BERT, RoBERTa)."""
    if isinstance(config, SizeSpec):
        return config.counts()
    if getattr(config, "model_type", None) not in ("bert", "roberta", "xlm-roberta"):
        kind = getattr(config, "model_type", type(config).__name__)
        raise InputError(
            f"count() knows BERT-shaped configurations, not {kind!r}; use size_report(model) for any model"
        )
    return SizeSpec(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        feed_forward=config.intermediate_size,
        vocabulary=config.vocab_size,
        positions=config.max_position_embeddings,
        token_types=config.type_vocab_size,
    ).counts()


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
                return _load_compressed(folder, num_labels, label_names, teacher), load_tokenizer(folder)
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
    check_finite(model)
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


def keep_layers(model: nn.Module, layers: int | Sequence[int]) -> tuple[int, ...]:
    """Cuts a transformers encoder to some of its blocks, in place; returns their indices.

    An int keeps that many, evenly spaced from the first (3 of 6: 0, 2, 4); a sequence is taken as listed.
    InputError: more than there are, none, repeated, out of range, or a model without one stack of blocks.
    """
    config: Any = model.config
    total = config.num_hidden_layers
    if isinstance(layers, int):
        if not 1 <= layers <= total:
            raise InputError(f"layers is {layers}, but the model has {total}: give 1 to {total}")
        kept = tuple(i * total // layers for i in range(layers))
    else:
        kept = tuple(layers)
        if not kept or len(set(kept)) != len(kept) or not all(0 <= i < total for i in kept):
            raise InputError(f"layers is {list(kept)}, but must list different numbers from 0 to {total - 1}")
    stacks = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m) == total]
    if len(stacks) != 1:
        raise InputError(f"{type(model).__name__} has no single stack of {total} blocks to take layers from")
    name, stack = stacks[0]
    chosen = nn.ModuleList(stack[i] for i in kept)
    for index, block in enumerate(chosen):
        parts: Iterator[Any] = block.modules()
        for module in parts:
            if hasattr(module, "layer_idx"):
                module.layer_idx = index
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, chosen)
    config.num_hidden_layers = len(kept)
    return kept


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
            _check_head(config, source, num_labels, label_names)
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
        raise InputError(f"the model of {source} cannot be read ({brief(error)})") from error
    body = f"{model.base_model_prefix}."
    missing = {*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])}
    misfits = sorted(key for key in missing if teacher or (key.startswith(body) and ".pooler." not in key))
    if misfits:
        raise InputError(f"the weights of {source} do not fit its config.json: {misfits[0]} is missing or misshapen")
    return model


def _check_head(config: Any, source: str, num_labels: int, label_names: Sequence[str] | None) -> None:
    """InputError unless the checkpoint's config has a classification head for these labels in this order."""
    if not any(name.endswith("ForSequenceClassification") for name in config.architectures or ()):
        raise InputError(f"the teacher {source} has no trained classification head; fine-tune it on the task first")
    if config.num_labels != num_labels:
        raise InputError(
            f"the teacher {source} was trained for {config.num_labels} labels, but the task has {num_labels}; "
            "give a teacher of the same task"
        )
    own = [str(config.id2label[i]).lower() for i in range(num_labels)]
    wanted = [str(label).lower() for label in label_names or own]
    if own != wanted and sorted(own) == sorted(wanted):
        raise InputError(f"the teacher {source} has its labels in the order {own}, but the task has {wanted}")


def _load_compressed(folder: Path, num_labels: int, label_names: Sequence[str] | None, teacher: bool) -> nn.Module:
    if not teacher:
        raise InputError(f"{folder} holds an already compressed model; a student starts from plain fp32 weights")
    model = checkpoint.load(folder)
    _check_head(model.config, str(folder), num_labels, label_names)
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
