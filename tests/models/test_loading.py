"""Loading encoders: new heads, other families, folders that `save` wrote, and folders that are none."""

from pathlib import Path

import pytest
import torch
from rounding import assert_same_logits
from small_tokenizer import write_tokenizer

from sparseq import checkpoint, models
from sparseq.errors import InputError
from sparseq.nn import convert, pack


def test_loads_a_folder_with_a_new_head(headless: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from transformers import BertModel

    model, tokenizer = models.load_model(headless, num_labels=2, label_names=("negative", "positive"))
    assert model.config.id2label == {0: "negative", 1: "positive"}
    assert model.config.problem_type == "single_label_classification"
    assert not model.training and {p.dtype for p in model.parameters()} == {torch.float32}
    source = BertModel.from_pretrained(headless).eval()
    batch = tokenizer(["word1 word2", "word3"], padding=True, return_tensors="pt")
    assert_same_logits(model.bert(**batch).pooler_output, source(**batch).pooler_output)
    assert model(**batch).logits.shape == (2, 2)
    assert "LOAD REPORT" not in capfd.readouterr().err


@pytest.mark.parametrize("family", ["DistilBert", "Roberta"])
def test_other_families(tmp_path: Path, family: str) -> None:
    import transformers

    shape = {"num_hidden_layers": 4, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 64}
    if family == "DistilBert":
        shape = {"n_layers": 4, "n_heads": 4, "dim": 32, "hidden_dim": 64}
    config = getattr(transformers, f"{family}Config")(vocab_size=24, **shape)
    getattr(transformers, f"{family}Model")(config).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    model, _ = models.load_model(tmp_path, num_labels=1, regression=True, layers=2)
    assert model.config.problem_type == "regression" and model.config.num_hidden_layers == 2
    assert model(input_ids=torch.tensor([[5, 6]])).logits.shape == (1, 1)


def test_saved_folders_as_teacher_and_student(classifier: Path, tmp_path: Path) -> None:
    plain, tokenizer = models.load_model(classifier, num_labels=3)
    batch = tokenizer("word1 word2", return_tensors="pt")
    checkpoint.save(plain, tmp_path / "plain", tokenizer)
    again, _ = models.load_model(tmp_path / "plain", num_labels=3, teacher=True)
    assert_same_logits(again(**batch).logits, plain(**batch).logits)
    student, _ = models.load_model(tmp_path / "plain", num_labels=2, layers=2)
    assert student.config.num_hidden_layers == 2

    packed = pack(convert(plain, bits=8))
    checkpoint.save(packed, tmp_path / "packed", tokenizer)
    again, _ = models.load_model(tmp_path / "packed", num_labels=3, teacher=True)
    assert_same_logits(again(**batch).logits, packed(**batch).logits)
    with pytest.raises(InputError, match="trained for 3 labels, but the task has 2"):
        models.load_model(tmp_path / "packed", num_labels=2, teacher=True)
    with pytest.raises(InputError, match="already compressed"):
        models.load_model(tmp_path / "packed", num_labels=3)


def test_wrong_folders(headless: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no folder \./nowhere"):
        models.load_model("./nowhere", num_labels=2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no config\.json"):
        models.load_model(tmp_path / "empty", num_labels=2)
    with pytest.raises(InputError, match="2 label names were given for 3 labels"):
        models.load_model(headless, num_labels=3, label_names=("a", "b"))
    with pytest.raises(InputError, match="regression has exactly one output"):
        models.load_model(headless, num_labels=2, regression=True)

    weights = headless / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(InputError, match="cannot be read"):
        models.load_model(headless, num_labels=2)
    weights.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        models.load_model(headless, num_labels=2)
    weights.write_bytes(whole)

    config = headless / "config.json"
    text = config.read_text()
    config.write_text(text.replace('"num_hidden_layers": 6', '"num_hidden_layers": 7'))
    with pytest.raises(InputError, match="do not fit"):
        models.load_model(headless, num_labels=2)
    config.write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        models.load_model(headless, num_labels=2)
    config.write_text(text)

    for file in headless.glob("*tok*"):
        file.unlink()
    with pytest.raises(InputError, match="holds no tokenizer"):
        models.load_model(headless, num_labels=2)


def test_tokenizer_of_another_model(headless: Path) -> None:
    from transformers import BertTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: i for i, word in enumerate([*special, *(f"word{i}" for i in range(40))])}
    BertTokenizer(vocab=vocabulary).save_pretrained(headless)
    with pytest.raises(InputError, match="45 tokens but the model embeds only 24"):
        models.load_model(headless, num_labels=2)


def test_weights_that_are_not_finite(headless: Path) -> None:
    from transformers import BertModel

    model = BertModel.from_pretrained(headless)
    with torch.no_grad():
        model.encoder.layer[1].output.dense.weight[0, 0] = float("nan")
    model.save_pretrained(headless)
    with pytest.raises(InputError, match=r"layer\.1\.output\.dense"):
        models.load_model(headless, num_labels=2)


@pytest.mark.parametrize("name", ["tiny", "someone/some-bert"])
def test_no_hub_and_no_copy(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    import huggingface_hub

    def unreachable(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    monkeypatch.setattr(models.loading, "_from_pretrained", lambda *args: (_ for _ in ()).throw(OSError("not cached")))
    with pytest.raises(InputError, match=r"not in the local cache and .* hub cannot be reached; .* folder"):
        models.load_model(name, num_labels=2)


def test_no_such_id(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="there is no model 'not a name!': neither a folder here, nor"):
        models.load_model("not a name!", num_labels=2)
