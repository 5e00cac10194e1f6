"""Runs whose student keeps only the tokens that its training rows have."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from broken_runs import break_off
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertTokenizerFast
from wordpieces import pieces

import sparseq
from sparseq.checkpoint import read_metadata
from sparseq.errors import InputError
from sparseq.train import Recipe, compress, evaluate, predict, prepare
from sparseq.train.folder import METRICS
from sparseq.train.plan import dry_run
from sparseq.train.progress import Reporter
from sparseq.train.rows import tokenised_rows, training_rows
from sparseq.train.vocabulary import keep_seen
from tests.conftest import BAD, GOOD, OTHER

QUIET = Reporter(silent=True)
VOCABULARY = pieces([*GOOD, *BAD, *OTHER, "terrible", "##able"], more=100)


@pytest.fixture(scope="module")
def dirs(make_model: Callable[..., Path]) -> dict[str, str]:
    """Folders of a student and a teacher with a vocabulary of which each character is a piece."""
    found = {}
    for name, layers in (("model", 2), ("teacher", 4)):
        folder = make_model(name, seed=layers, num_hidden_layers=layers, vocab_size=len(VOCABULARY))
        BertTokenizerFast(vocab=VOCABULARY, model_max_length=64).save_pretrained(folder)
        found[name] = str(folder)
    return found


@pytest.fixture
def seen(make_recipe: Callable[..., Recipe], dirs: dict[str, str]) -> Callable[..., Recipe]:
    def make(**changes: Any) -> Recipe:
        return make_recipe(**{**dirs, "vocabulary": "seen", "epochs": 1, "precision": "fp32", **changes}).validate()

    return make


def test_a_run_from_the_plan_to_predictions(seen: Callable[..., Recipe]) -> None:
    recipe = seen(methods="qat", embedding_bits=4)
    planned = dry_run(recipe, reporter=QUIET)
    result = compress(recipe, reporter=QUIET)
    assert planned.stored_bytes == result.stored_bytes and planned.plan.vocabulary == result.vocabulary
    before, after = result.vocabulary["before"], result.vocabulary["after"]
    assert before == len(VOCABULARY) and after < before - 100
    assert json.loads((Path(result.out) / METRICS).read_text())["vocabulary"] == result.vocabulary
    said = " ".join(" ".join(planned.plan.lines).split())
    assert f"{after} of {before} tokens: those of the training rows" in said
    tokenizer, model = AutoTokenizer.from_pretrained(result.out), sparseq.load(result.out)
    assert len(tokenizer) == after == model.config.vocab_size == model.bert.embeddings.word_embeddings.num_embeddings
    assert "terrible" not in tokenizer.get_vocab()
    texts = ["the film was good", "terribly unwatchable, zzz"]
    assert "[UNK]" not in tokenizer.tokenize(texts[1][:8]) and "[UNK]" in tokenizer.tokenize(texts[1])
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits
        assert torch.equal(AutoModelForSequenceClassification.from_pretrained(result.out)(**batch).logits, logits)
    found = predict(result.out, [(text,) for text in texts])
    assert [int(one.label) for one in found] == logits.argmax(1).tolist()
    assert evaluate(result.out, reporter=QUIET)["metrics"] == result.metrics
    assert compress(recipe, reporter=QUIET).finished_before


@pytest.mark.parametrize("methods", ["none", "kd", "qat,kd,mp"])
def test_each_method(methods: str, seen: Callable[..., Recipe]) -> None:
    result = compress(seen(methods=methods), reporter=QUIET)
    assert result.score == result.score_before_packing and result.vocabulary["after"] < len(VOCABULARY)
    assert evaluate(result.out, reporter=QUIET)["metrics"] == result.metrics


@pytest.mark.parametrize("hidden_loss", [0.0, 1.0])
def test_rows_are_read_as_with_the_whole_vocabulary(hidden_loss: float, seen: Callable[..., Recipe]) -> None:
    """Each training and validation row of seen words gives the same logits, and the teacher's inputs are its own."""
    found: dict[str, Any] = {}
    for vocabulary in ("all", "seen"):
        recipe = seen(methods="kd", vocabulary=vocabulary, hidden_loss=hidden_loss)
        prepared = prepare.prepare(recipe)
        tokens = tokenised_rows(recipe, prepared, QUIET)
        rows = training_rows(recipe, prepared, tokens, QUIET)
        found[vocabulary] = prepared, tokens, rows
    (whole, _, theirs), (smaller, tokens, own) = found["all"], found["seen"]
    assert smaller.vocabulary is not None and len(own) == len(theirs) == 66
    for ours, other in zip(own, theirs, strict=True):
        ids, old = ours.pop("input_ids"), other.pop("input_ids")
        assert [smaller.vocabulary.kept[number] for number in ids] == old and ours == other
        with torch.no_grad():
            logits = [
                model.eval()(input_ids=torch.tensor([numbers])).logits
                for model, numbers in ((smaller.student, ids), (whole.student, old))
            ]
        assert torch.equal(*logits)
    assert any(name.startswith("teacher_input.") for name in own.column_names) is bool(hidden_loss)


def test_hidden_states_are_compared_as_with_the_whole_vocabulary(seen: Callable[..., Recipe]) -> None:
    """Unseen rows have no gradient; without decay and dropout all other weights are trained alike."""
    prepared = prepare.prepare(seen(methods="kd", hidden_loss=1.0))
    assert prepared.vocabulary is not None
    result = compress(seen(methods="kd", hidden_loss=1.0, weight_decay=0.0, augment_copies=0), reporter=QUIET)
    whole = seen(methods="kd", hidden_loss=1.0, weight_decay=0.0, vocabulary="all")
    other = compress(whole.replace(out=f"{whole.out}-all"), reporter=QUIET)
    assert result.metrics == other.metrics
    ours, theirs = sparseq.load(result.out), sparseq.load(other.out)
    table = theirs.bert.embeddings.word_embeddings.weight[torch.tensor(prepared.vocabulary.kept)]
    torch.testing.assert_close(ours.bert.embeddings.word_embeddings.weight, table, rtol=0, atol=1e-6)


def test_teachers_of_other_vocabularies(seen: Callable[..., Recipe], tiny_teacher_dir: Path) -> None:
    assert compress(seen(methods="kd", teacher=str(tiny_teacher_dir)), reporter=QUIET).vocabulary
    with pytest.raises(InputError, match="token by token, but their vocabularies differ"):
        compress(seen(methods="kd", teacher=str(tiny_teacher_dir), hidden_loss=1.0, out="other"), reporter=QUIET)


def test_a_broken_run_goes_on(seen: Callable[..., Recipe], tmp_path: Path) -> None:
    recipe = seen(methods="qat,mp", save_steps=3, out=str(tmp_path / "broken"))
    break_off(recipe, after=5)
    found = compress(recipe, reporter=QUIET)
    unbroken = compress(recipe.replace(out=str(tmp_path / "unbroken")), reporter=QUIET)
    assert found.metrics == unbroken.metrics
    assert read_metadata(found.out)["sha256"] == read_metadata(unbroken.out)["sha256"]


def test_finished_folders_are_checked(seen: Callable[..., Recipe], dirs: dict[str, str], tmp_path: Path) -> None:
    model = shutil.copytree(dirs["model"], tmp_path / "model")
    recipe = seen(methods="none", model=str(model))
    compress(recipe, reporter=QUIET)
    with pytest.raises(InputError, match="--vocabulary is seen there and all here"):
        compress(recipe.replace(vocabulary="all"), reporter=QUIET)
    path = model / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["terrible"], vocabulary["##able"] = vocabulary["##able"], vocabulary["terrible"]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="model's tokenizer has changed since"):
        compress(recipe, reporter=QUIET)


def test_copies_are_seen_too(seen: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch) -> None:
    from datasets import concatenate_datasets

    from sparseq.augment.dataset import AugmentationStats, Augmented

    def with_a_copy(recipe: Recipe, rows: Any) -> Augmented:
        copy = rows.select([0]).map(lambda row: {"text_a": "a terrible film"})
        return Augmented(concatenate_datasets([rows, copy]), AugmentationStats(1, 3, 1, 0))

    monkeypatch.setattr("sparseq.train.vocabulary.augmented", with_a_copy)
    monkeypatch.setattr("sparseq.train.prepare.wordnet_fingerprint", lambda recipe: {})
    result = compress(seen(methods="none", augment_copies=1), reporter=QUIET)
    assert "terrible" in AutoTokenizer.from_pretrained(result.out).get_vocab()
    assert result.rows["train"] == 67 and result.augmentation["copies"] == 1


def test_another_tokenizer_is_refused(seen: Callable[..., Recipe], make_model: Callable[..., Path]) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    folder = make_model("bpe")
    vocabulary = {token: number for number, token in enumerate(["<pad>", "a", "b", "c"])}
    made = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE(vocabulary, [])), pad_token="<pad>")
    made.save_pretrained(folder)
    recipe = seen(methods="none", model=str(folder))
    with pytest.raises(InputError, match=r"needs a WordPiece tokenizer, and that of .* is BPE: leave out --vocab"):
        compress(recipe, reporter=QUIET)
    assert not Path(str(recipe.out)).exists()


def test_a_row_that_would_be_read_otherwise_is_refused(make_model: Callable[..., Path]) -> None:
    """Without "ab", "abc" is no unknown word any more: "c" within a word is no piece of its own."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "##a", "##b", "ab", "##bc"]
    tokenizer = BertTokenizerFast(vocab={piece: number for number, piece in enumerate(vocabulary)})
    model = AutoModelForSequenceClassification.from_pretrained(make_model("odd", vocab_size=len(vocabulary)))
    recipe = Recipe.from_dict({"model": "odd"})
    with pytest.raises(InputError, match="splits training row 2 differently once unseen tokens are removed"):
        keep_seen(recipe, model, tokenizer, Dataset.from_dict({"text_a": ["a b", "abc"]}))
