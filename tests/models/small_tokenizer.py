"""The tokenizer of the small models."""

from pathlib import Path


def write_tokenizer(folder: Path) -> None:
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(19))]
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)
