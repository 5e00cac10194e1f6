"""The six BERT sizes, and parameter counts in closed form; `config_for` imports transformers when called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparseq.errors import InputError
from sparseq.extras import naming_extra

__all__ = ["SIZES", "ParameterCounts", "SizeSpec", "config_for", "count"]

BERT_VOCABULARY = 30522


@dataclass(frozen=True)
class ParameterCounts:
    """How many parameters a BERT has.

    total: `BertModel` with pooler. with_mlm_head: the same plus a masked-language-model head whose vocabulary-by-hidden
    decoder is not tied to the word embedding; the paper quotes this count. encoder_linear_weights: weights (no biases)
    of the six linear layers of every block, which is what pruning acts on.
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


@naming_extra("hf")
def config_for(size: str) -> Any:
    """The `transformers.BertConfig` of one of the six sizes. Raises InputError for another name."""
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
