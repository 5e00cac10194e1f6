"""Loading encoders and cutting their layers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from rounding import assert_same_logits

from sparseq import checkpoint, models
from sparseq.errors import InputError
from sparseq.nn import convert, pack


@pytest.fixture
def tiny_config() -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=24,
        hidden_size=32,
        num_hidden_layers=6,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=16,
        num_labels=3,
    )


def write_tokenizer(folder: Path) -> None:
    from transformers import BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(19))]
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}).save_pretrained(folder)


@pytest.fixture
def headless(tmp_path: Path, tiny_config: Any) -> Path:
    """A folder with an encoder that has no classification head, as MiniLM's."""
    from transformers import BertModel

    torch.manual_seed(0)
    BertModel(tiny_config).save_pretrained(tmp_path / "headless")
    write_tokenizer(tmp_path / "headless")
    return tmp_path / "headless"


@pytest.fixture
def classifier(tmp_path: Path, tiny_config: Any) -> Path:
    """A folder with a three-label classifier."""
    from transformers import BertForSequenceClassification

    torch.manual_seed(0)
    tiny_config.id2label = {0: "no", 1: "maybe", 2: "yes"}
    BertForSequenceClassification(tiny_config).save_pretrained(tmp_path / "classifier")
    write_tokenizer(tmp_path / "classifier")
    return tmp_path / "classifier"


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


@pytest.mark.parametrize(("layers", "kept"), [(3, (0, 2, 4)), (1, (0,)), (6, (0, 1, 2, 3, 4, 5)), ((5, 1), (5, 1))])
def test_keeps_layers(headless: Path, layers: int | tuple[int, ...], kept: tuple[int, ...]) -> None:
    whole, _ = models.load_model(headless, num_labels=2)
    cut, tokenizer = models.load_model(headless, num_labels=2, layers=layers)
    assert cut.config.num_hidden_layers == len(cut.bert.encoder.layer) == len(kept)
    for mine, index in zip(cut.bert.encoder.layer, kept, strict=True):
        for a, b in zip(mine.parameters(), whole.bert.encoder.layer[index].parameters(), strict=True):
            assert torch.equal(a, b)
    cut(**tokenizer("word1", return_tensors="pt"))


@pytest.mark.parametrize("layers", [0, 7, -1, (), (0, 0), (0, 6)])
def test_refuses_impossible_layers(headless: Path, layers: int | tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="layers is"):
        models.load_model(headless, num_labels=2, layers=layers)


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


def test_teacher_must_fit_the_task(classifier: Path, headless: Path) -> None:
    teacher, _ = models.load_model(classifier, num_labels=3, teacher=True)
    student, _ = models.load_model(classifier, num_labels=3)
    assert torch.equal(teacher.classifier.weight, student.classifier.weight)
    renewed, _ = models.load_model(classifier, num_labels=2)
    assert renewed.classifier.weight.shape == (2, 32)
    with pytest.raises(InputError, match="trained for 3 labels, but the task has 2"):
        models.load_model(classifier, num_labels=2, teacher=True)
    with pytest.raises(InputError, match="no trained classification head"):
        models.load_model(headless, num_labels=2, teacher=True)
    with pytest.raises(InputError, match="labels in the order"):
        models.load_model(classifier, num_labels=3, label_names=("yes", "maybe", "no"), teacher=True)
    models.load_model(classifier, num_labels=3, label_names=("No", "Maybe", "Yes"), teacher=True)


SENTIMENT, GENERIC = ("negative", "positive"), ("LABEL_0", "LABEL_1")
HEADS: list[tuple[Any, dict[str, Any], str]] = [
    (SENTIMENT, {"label_names": ("NEGATIVE", "Positive")}, ""),
    (("not_entailment", "entailment"), {"label_names": ("Not Entailment", "ENTAILMENT")}, ""),
    (GENERIC, {"label_names": SENTIMENT}, ""),
    (("label 0", "Label-1"), {"label_names": SENTIMENT}, ""),
    (SENTIMENT, {"label_names": ("0", "1")}, ""),
    (SENTIMENT, {"label_names": None}, ""),
    (("1", "2"), {"label_names": ("0", "1")}, ""),
    (
        SENTIMENT,
        {"label_names": ("not_equivalent", "equivalent")},
        "trained for the labels .*negative.* the task has .*eq",
    ),
    (SENTIMENT, {"label_names": ("negative", "neutral")}, "trained for the labels"),
    (SENTIMENT, {"label_names": ("positive", "negative")}, "labels in the order"),
    (("LABEL_0", "positive"), {"label_names": SENTIMENT}, "trained for the labels"),
    (("x",), {"label_names": SENTIMENT}, "was trained for 1 label, but the task has 2"),
    (("x",), {"label_names": None, "num_labels": 1, "regression": True}, ""),
    (SENTIMENT, {"label_names": SENTIMENT, "problem_type": "multi_label_classification"}, "multi label classification"),
    (
        ("x",),
        {"num_labels": 1, "regression": True, "problem_type": "multi_label_classification"},
        "is regression",
    ),
]


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize(("own", "task", "refused"), HEADS, ids=str)
def test_a_teacher_of_another_task_is_refused(
    own: tuple[str, ...], task: dict[str, Any], refused: str, compressed: bool, tmp_path: Path, tiny_config: Any
) -> None:
    from transformers import BertForSequenceClassification

    task = {"num_labels": 2, "label_names": None, **task}
    tiny_config.num_hidden_layers = 1
    tiny_config.problem_type = task.pop("problem_type", None)
    tiny_config.num_labels = len(own)
    tiny_config.id2label = dict(enumerate(own))
    teacher = BertForSequenceClassification(tiny_config)
    if compressed:
        checkpoint.save(pack(convert(teacher)), tmp_path)
    else:
        teacher.save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    if refused:
        with pytest.raises(InputError, match=refused):
            models.load_model(tmp_path, teacher=True, **task)
    else:
        models.load_model(tmp_path, teacher=True, **task)


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
