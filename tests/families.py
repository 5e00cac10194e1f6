"""Folders with a tiny random model of each family of encoders, with a tokenizer of the family's own kind."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tests.conftest import BAD, GOOD, OTHER

WORDS = [*GOOD, *BAD, *OTHER]
MERGES = [("\u0120", "t"), ("\u0120t", "h"), ("\u0120th", "e")]
LENGTH = 64
"""Tokens that every one of these models reads."""


@dataclass(frozen=True)
class Family:
    """model, tokenizer: names in transformers. changes: to the configuration, on top of `SHAPE`.

    kind: of the tokenizer's vocabulary, 'wordpiece', 'unigram' or 'bpe'. offset: of the first position."""

    model: str
    tokenizer: str
    kind: str
    changes: dict[str, Any] = field(default_factory=dict)
    offset: int = 0


SHAPE = {
    "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64, "num_labels": 2,
}  # fmt: skip
DISTILBERT = {"dim": 32, "n_layers": 4, "n_heads": 2, "hidden_dim": 64, "num_labels": 2}
FAMILIES = {
    "bert": Family("Bert", "BertTokenizer", "wordpiece"),
    "roberta": Family("Roberta", "RobertaTokenizer", "bpe", {"type_vocab_size": 1}, 2),
    "xlm-roberta": Family("XLMRoberta", "XLMRobertaTokenizer", "unigram", {"type_vocab_size": 1}, 2),
    "camembert": Family("Camembert", "CamembertTokenizer", "unigram", {"type_vocab_size": 1}, 2),
    "distilbert": Family("DistilBert", "DistilBertTokenizer", "wordpiece"),
    "electra": Family("Electra", "BertTokenizer", "wordpiece", {"embedding_size": 16}),
    "albert": Family("Albert", "AlbertTokenizer", "unigram", {"embedding_size": 16}),
    "deberta-v2": Family(
        "DebertaV2", "DebertaV2Tokenizer", "unigram",
        {"relative_attention": True, "position_buckets": 8, "pos_att_type": "p2c|c2p", "share_att_key": True,
         "type_vocab_size": 0, "position_biased_input": False},
    ),
    "mpnet": Family("MPNet", "MPNetTokenizer", "wordpiece", {}, 2),
    "modernbert": Family("ModernBert", "PreTrainedTokenizerFast", "bpe", {"local_attention": 16}),
    "minilm": Family("Bert", "BertTokenizer", "wordpiece", {"hidden_size": 48, "intermediate_size": 192}),
}  # fmt: skip


def tokenizer_of(family: Family) -> Any:
    """A tokenizer that knows the tiny data's words."""
    import transformers

    kind = getattr(transformers, family.tokenizer)
    options: dict[str, Any] = {"model_max_length": LENGTH}
    if family.kind == "wordpiece":
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        if family.tokenizer == "MPNetTokenizer":
            special = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
        return kind(vocab={word: i for i, word in enumerate([*special, *WORDS])}, **options)
    if family.kind == "unigram":
        special = {
            "XLMRobertaTokenizer": ["<s>", "<pad>", "</s>", "<unk>"],
            "CamembertTokenizer": ["<s>", "<pad>", "</s>", "<unk>"],
            "AlbertTokenizer": ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"],
            "DebertaV2Tokenizer": ["[PAD]", "[UNK]", "[CLS]", "[SEP]"],
        }[family.tokenizer]
        pieces = [(piece, 0.0) for piece in special]
        pieces += [(f"\u2581{word}", -2.0) for word in WORDS] + [("\u2581", -3.0)]
        pieces += [(letter, -9.0) for letter in "abcdefghijklmnopqrstuvwxyz"]
        last = "[MASK]" if family.tokenizer == "DebertaV2Tokenizer" else "<mask>"
        return kind(
            vocab=[*pieces, *([(last, 0.0)] if last not in special and "[MASK]" not in special else [])], **options
        )
    letters = [*"abcdefghijklmnopqrstuvwxyz", "\u0120"]
    if family.tokenizer == "RobertaTokenizer":
        special = ["<s>", "<pad>", "</s>", "<unk>"]
        vocabulary = {
            piece: i for i, piece in enumerate([*special, *letters, "\u0120t", "\u0120th", "\u0120the", "<mask>"])
        }
        return kind(vocab=vocabulary, merges=[("\u0120", "t"), ("\u0120t", "h"), ("\u0120th", "e")], **options)
    return byte_level(letters, options)


def byte_level(letters: list[str], options: dict[str, Any]) -> Any:
    """ModernBERT's: byte-level pairs with BERT's special tokens, in a plain PreTrainedTokenizerFast."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {piece: i for i, piece in enumerate([*special, *letters, "\u0120t", "\u0120th", "\u0120the"])}
    found = Tokenizer(BPE(vocabulary, MERGES, unk_token="[UNK]"))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    found.decoder = decoders.ByteLevel()
    found.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=found, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_input_names=["input_ids", "attention_mask"], **options,
    )  # fmt: skip


def make_family(name: str, folder: Path, seed: int = 1, **changes: Any) -> Path:
    """A folder with a random classifier of the family, four layers of width 32 (48 for MiniLM), and its tokenizer."""
    import transformers

    family = FAMILIES[name]
    tokenizer = tokenizer_of(family)
    shape = DISTILBERT if name == "distilbert" else SHAPE
    config = getattr(transformers, f"{family.model}Config")(
        **{
            **shape, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id,
            "max_position_embeddings": LENGTH + family.offset, "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id, "cls_token_id": tokenizer.cls_token_id,
            "sep_token_id": tokenizer.sep_token_id, **family.changes, **changes,
        }
    )  # fmt: skip
    torch.manual_seed(seed)
    model = getattr(transformers, f"{family.model}ForSequenceClassification")(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
