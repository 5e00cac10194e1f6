"""Smaller vocabularies: what is read as before, and what a model then gives."""

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, processors
from tokenizers.models import BPE
from torch import nn
from wordpieces import pieces

from sparseq.errors import InputError
from sparseq.models import load_tokenizer
from sparseq.models.vocabulary import keep_rows, kept_tokens, smaller_tokenizer

WORDS = ["good", "film", "bade", "cab", "##bed"]
TEXTS = ["Good film, cab", "a bade dab", "xq film"]


def made(more: int = 150, **vocabulary: int) -> Any:
    from transformers import BertTokenizerFast

    return BertTokenizerFast(vocab={**pieces(WORDS, more), **vocabulary}, model_max_length=64)


def bert(tokenizer: Any, head: str = "Model", **changes: Any) -> Any:
    import transformers

    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    return getattr(transformers, f"Bert{head}")(
        transformers.BertConfig(**{**shape, "vocab_size": len(tokenizer), **changes})
    )


def smaller(tokenizer: Any, texts: list[str], model: Any = None) -> tuple[Any, list[int]]:
    seen = {number for ids in tokenizer(texts)["input_ids"] for number in ids}
    kept = kept_tokens(tokenizer, model or bert(tokenizer), seen, "it")
    assert seen <= set(kept) and kept == sorted(kept)
    return smaller_tokenizer(tokenizer, kept, "it"), kept


def random_text(draw: random.Random) -> str:
    letters = "aAbBcCdDeE" * 3 + "xyzZ[]0é漢"
    return " ".join("".join(draw.choice(letters) for _ in range(draw.randrange(1, 9))) for _ in range(6))


def test_seen_texts_give_the_same_tokens_and_others_are_read() -> None:
    tokenizer = made()
    found, kept = smaller(tokenizer, TEXTS)
    assert len(kept) < len(tokenizer) - 100
    old, new = tokenizer.get_vocab(), found.get_vocab()
    assert new == {token: kept.index(number) for token, number in old.items() if number in kept}
    assert all(number in kept for token, number in old.items() if len(token.removeprefix("##")) == 1)
    assert "[unused0]" not in new and found.pad_token_id == tokenizer.pad_token_id
    for text in [*TEXTS, *TEXTS[:1] * 3, "[MASK] good"]:
        for pair in ((), ("a film",)):
            own, other = found(text, *pair), tokenizer(text, *pair)
            assert [kept[number] for number in own["input_ids"]] == other["input_ids"]
            assert own["token_type_ids"] == other["token_type_ids"]
    draw, unknown = random.Random(1), 0
    for _ in range(300):
        text = random_text(draw)
        own, other = found.tokenize(text), tokenizer.tokenize(text)
        assert own.count("[UNK]") == other.count("[UNK]")
        assert "".join(own).replace("##", "") == "".join(other).replace("##", "")
        unknown += own.count("[UNK]")
    assert unknown > 100


def test_it_is_loaded_as_it_was_saved(tmp_path: Path) -> None:
    tokenizer = made()
    tokenizer(TEXTS, padding="max_length", max_length=12, truncation=True)  # its settings stay in the tokenizer
    found, _ = smaller(tokenizer, TEXTS)
    found.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert type(loaded) is type(tokenizer) and loaded.get_vocab() == found.get_vocab()
    for text in TEXTS:
        assert loaded(text, padding="max_length", max_length=20) == found(text, padding="max_length", max_length=20)
    assert loaded.model_max_length == 64 and loaded.padding_side == tokenizer.padding_side


def test_added_tokens_and_other_post_processors() -> None:
    tokenizer = made()
    tokenizer.add_tokens(["<new>", "cabby film"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<user>"]})
    own = {name: tokenizer.convert_tokens_to_ids(name) for name in ("[SEP]", "[CLS]")}
    tokenizer.backend_tokenizer.post_processor = processors.BertProcessing(*own.items())
    found, kept = smaller(tokenizer, TEXTS)
    for text in ("<user> good <new> cabby film", *TEXTS):
        assert [kept[number] for number in found(text)["input_ids"]] == tokenizer(text)["input_ids"]
    tokenizer.backend_tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(), processors.RobertaProcessing(*own.items())]
    )
    found, kept = smaller(tokenizer, TEXTS)
    assert [kept[number] for number in found("good")["input_ids"]] == tokenizer("good")["input_ids"]


def test_pieces_with_a_character_that_has_no_piece_stay() -> None:
    tokenizer = made(**{"éa": 300, "##aé": 301, "ada": 302})
    _, kept = smaller(tokenizer, TEXTS)
    assert {300, 301} <= set(kept) and 302 not in kept


FAMILIES = {"Bert": {}, "Electra": {"embedding_size": 16}, "MPNet": {}, "MobileBert": {"embedding_size": 16}}


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_whole_vocabulary(family: str, tmp_path: Path) -> None:
    import transformers

    tokenizer = made()
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer) + 5, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64, "intra_bottleneck_size": 32, "pad_token_id": 0, "sep_token_id": 4,
    }  # fmt: skip
    config = getattr(transformers, f"{family}Config")(**shape, **FAMILIES[family])
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    before = copy.deepcopy(model)
    found, kept = smaller(tokenizer, TEXTS, model)
    keep_rows(model, kept, "it")
    assert model.get_input_embeddings().weight.shape[0] == model.config.vocab_size == len(found) == len(kept)
    assert model.config.pad_token_id == 0 and model.config.sep_token_id == found.sep_token_id
    for texts in (TEXTS, TEXTS[:1]):
        own, other = (tokens(texts, padding=True, return_tensors="pt") for tokens in (found, tokenizer))
        names = set(own) if family != "MPNet" else {"input_ids", "attention_mask"}
        own, other = ({name: batch[name] for name in names} for batch in (own, other))
        assert torch.equal(model(**own).logits, before(**other).logits)
    model.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(loaded(**own).logits, model(**own).logits)


def test_padding_keeps_its_id() -> None:
    from transformers import BertTokenizerFast

    vocabulary = list(pieces(WORDS, 150))
    vocabulary.remove("[PAD]")
    vocabulary.insert(100, "[PAD]")
    tokenizer = BertTokenizerFast(vocab={piece: number for number, piece in enumerate(vocabulary)})
    found, kept = smaller(tokenizer, TEXTS, bert(tokenizer, pad_token_id=100))
    assert found.pad_token_id == 100 and kept[:101] == list(range(101)) and len(kept) < len(tokenizer)


def test_what_cannot_be_made_smaller_is_refused() -> None:
    from transformers import PreTrainedTokenizerFast

    model = bert(made(), "ForMaskedLM")
    bpe = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE({"a": 0, "b": 1}, [])))
    for other, kind in ((bpe, "BPE"), (object(), "written in Python")):
        with pytest.raises(InputError, match=f"needs a WordPiece tokenizer, and that of it is {kind}"):
            kept_tokens(other, model, [], "it")
    odd = made()
    odd.backend_tokenizer.enable_padding(pad_id=9999)
    with pytest.raises(InputError, match="of it cannot be made smaller: it names 9999, which is no token"):
        smaller_tokenizer(odd, kept_tokens(odd, model, [], "it"), "it")
    with pytest.raises(InputError, match="of it cannot be made smaller: its embedding shares its weight"):
        keep_rows(model, [0, 1], "it")
    model.set_input_embeddings(nn.Embedding(7, 8))
    with pytest.raises(InputError, match="of it cannot be made smaller: it has no plain embedding of its tokens"):
        keep_rows(model, [0, 1], "it")
