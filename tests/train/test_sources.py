"""Runs on GLUE's folders, with augmented copies, and on encoders other than BERT."""

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from broken_runs import break_off

from sparseq.distill import digest_texts
from sparseq.distill.batch import ALPHA
from sparseq.errors import InputError
from sparseq.models import load_model
from sparseq.tasks import load_data
from sparseq.train import Recipe, compress, evaluate, predict, prepare
from sparseq.train.copies import augmented
from sparseq.train.plan import dry_run
from sparseq.train.progress import Reporter
from sparseq.train.rows import tokenised_rows, training_rows

QUIET = Reporter(silent=True)


def glue_folder(folder: Path, tables: dict[str, list[list[str]]]) -> Path:
    folder.mkdir(parents=True)
    for name, rows in tables.items():
        (folder / f"{name}.tsv").write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_mnli_is_scored_on_both_of_its_splits(
    make_recipe: Callable[..., Recipe], make_model: Callable[..., Path], tmp_path: Path
) -> None:
    labels = ["entailment", "neutral", "contradiction"]
    header = ["sentence1", "sentence2", "gold_label"]
    rows = [[f"the film {i}", "good plot", labels[i % 3]] for i in range(24)]
    glue_folder(
        tmp_path / "glue" / "MNLI",
        {"train": [header, *rows], "dev_matched": [header, *rows[:9]], "dev_mismatched": [header, *rows[:6]]},
    )
    result = compress(
        make_recipe(
            task="mnli", train_file=None, validation_file=None, data_dir=str(tmp_path / "glue"), epochs=1,
            teacher=str(make_model("mnli", num_labels=3, id2label=dict(enumerate(labels)))),
        )
    )  # fmt: skip
    assert result.task == "mnli"
    assert set(result.metrics) == {"accuracy_matched", "accuracy_mismatched"}
    assert result.score == pytest.approx(sum(result.metrics.values()) / 2)
    assert result.rows == {"train": 24, "validation_matched": 9, "validation_mismatched": 6}
    assert evaluate(result.out)["metrics"] == result.metrics
    assert predict(result.out, [("the film", "good plot")])[0].label in labels


def test_sst2_by_folder_then_scored_on_own_rows(
    make_recipe: Callable[..., Recipe], tiny_csv: tuple[Path, Path], tmp_path: Path
) -> None:
    rows = [["sentence", "label"], *([f"{word} film", str(int(word == "good"))] for word in ["good", "bad"] * 10)]
    folder = glue_folder(tmp_path / "SST-2", {"train": rows, "dev": rows[:9]})
    source = {"train_file": None, "validation_file": None, "data_dir": str(folder)}
    result = compress(make_recipe(task="SST-2", methods="qat,mp", epochs=1, **source))
    assert predict(result.out, [("good film",)])[0].label in ("negative", "positive")
    assert evaluate(result.out, validation_file=str(tiny_csv[1]))["rows"] == {"validation": 40}
    with pytest.raises(InputError, match="give that too"):
        evaluate(result.out, label_column="stars")


@pytest.fixture(scope="module")
def wndb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small WordNet that knows "film" and "story"."""
    path = Path(__file__).parents[1] / "augment" / "small_wndb.py"
    found = importlib.util.spec_from_file_location("small_wndb", path)
    assert found is not None and found.loader is not None
    module: ModuleType = importlib.util.module_from_spec(found)
    sys.modules["small_wndb"] = module  # its dataclass looks itself up there
    found.loader.exec_module(module)
    folder: Path = module.write_wndb(tmp_path_factory.mktemp("wndb"), module.MEANINGS)
    return folder


def test_another_wordnet(make_recipe: Callable[..., Recipe], wndb: Path, tmp_path: Path) -> None:
    own = shutil.copytree(wndb, tmp_path / "wordnet")
    recipe = make_recipe(methods="none", epochs=1, augment_copies=1, wordnet=str(own))
    compress(recipe)
    assert compress(recipe).finished_before
    (own / "data.noun").write_text((own / "data.noun").read_text().replace("a gloss", "b gloss"))
    with pytest.raises(InputError, match="but the WordNet has changed since"):
        compress(recipe)


@pytest.mark.parametrize("methods", ["none", "qat,kd,mp"])
def test_augmented_copies_with_and_without_kd(methods: str, make_recipe: Callable[..., Recipe], wndb: Path) -> None:
    result = compress(make_recipe(methods=methods, epochs=1, augment_copies=2, augment_rate=0.5, wordnet=str(wndb)))
    assert 66 < result.rows["train"] <= 3 * 66
    assert result.steps == -(-result.rows["train"] // 8)
    told = json.loads((Path(result.out) / "metrics.json").read_text())["augmentation"]
    assert told == result.augmentation
    assert told["copies"] == result.rows["train"] - 66 and told["unchanged_copies"] == 2 * 66 - told["copies"]
    assert 0 < told["rate"] == told["replaced"] / told["words"] < 0.5


def test_a_dry_run_tells_the_rate(make_recipe: Callable[..., Recipe], wndb: Path) -> None:
    recipe = make_recipe(methods="none", augment_copies=1, augment_rate=0.5, wordnet=str(wndb))
    found = dry_run(recipe, reporter=QUIET)
    told = found.as_dict()["augmentation"]
    assert 0 < told["rate"] < 0.5 and told["copies"] == found.plan.rows["train"] - 66
    line = " ".join(" ".join(found.plan.lines).split())
    assert f"copies ({told['rate']:.1%} of words replaced, 50.0% asked)" in line
    assert dry_run(recipe.replace(augment_copies=0), reporter=QUIET).as_dict()["augmentation"] == {}


def test_copies_have_a_weight_of_their_own(make_recipe: Callable[..., Recipe], wndb: Path) -> None:
    def rows_of(recipe: Recipe) -> Any:
        prepared = prepare.prepare(recipe)
        return training_rows(recipe, prepared, tokenised_rows(recipe, prepared, QUIET), QUIET)

    recipe = make_recipe(methods="kd", epochs=1, augment_copies=1, augment_rate=1.0, kd_alpha=0.25, wordnet=str(wndb))
    assert ALPHA not in rows_of(recipe.validate()).column_names
    recipe = recipe.replace(augment_alpha=1.0).validate()
    rows = rows_of(recipe)
    assert rows[ALPHA][:] == [0.25] * 66 + [1.0] * (len(rows) - 66) and len(rows) > 66
    assert compress(recipe).steps == -(-len(rows) // 8)


def test_copies_that_another_version_made(
    make_recipe: Callable[..., Recipe], wndb: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(methods="none", epochs=1, save_steps=4, augment_copies=1, augment_rate=0.9, wordnet=str(wndb))
    break_off(recipe, after=6)
    made = augmented

    def fewer(*arguments: Any) -> Any:
        copies, stats = made(*arguments)
        return copies.select(range(len(copies) - 1)), stats

    with monkeypatch.context() as patch:
        patch.setattr("sparseq.train.rows.augmented", fewer)
        with pytest.raises(InputError, match="augmented data"):
            compress(recipe)
    assert "augmented data" in compress(recipe).fingerprint


def test_copies_are_counted(make_recipe: Callable[..., Recipe], wndb: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = make_recipe(methods="none", augment_copies=1, augment_rate=0.9, wordnet=str(wndb)).validate()
    prepared = prepare.prepare(recipe)
    rows = tokenised_rows(recipe, prepared, Reporter()).texts
    _, stats = augmented(recipe, prepared.data.train)  # type: ignore[arg-type]
    assert 0 < stats.rate < 0.9
    assert f"{len(rows)} training rows ({stats.copies} of them copies)" in capsys.readouterr().err


@pytest.mark.processor
def test_the_teacher_reads_the_copies_too_and_protected_words_stay(
    make_recipe: Callable[..., Recipe], wndb: Path, tiny_teacher_dir: Path
) -> None:
    recipe = make_recipe(
        methods="kd", augment_copies=1, augment_rate=1.0, wordnet=str(wndb), precision="fp32"
    ).validate()
    prepared = prepare.prepare(recipe)
    rows = training_rows(recipe, prepared, tokenised_rows(recipe, prepared, QUIET), QUIET)
    texts, stats = augmented(recipe, prepared.data.train)  # type: ignore[arg-type]
    assert stats.copies == len(texts) - 66 and 0 < stats.rate < 1
    assert len(rows) == len(texts) > 66
    teacher, tokenizer = load_model(str(tiny_teacher_dir), num_labels=2, teacher=True)
    for number in (0, 65, 66, len(rows) - 1):
        batch = tokenizer(texts[number]["text_a"], return_tensors="pt")
        with torch.no_grad():
            wanted = teacher(**batch).logits[0]
        torch.testing.assert_close(torch.tensor(rows[number]["teacher_logits"]), wanted, rtol=1e-4, atol=1e-5)
    protecting = recipe.replace(protected_words="film,movie,story,tale")
    kept, _ = augmented(protecting, prepared.data.train)  # type: ignore[arg-type]
    assert len(kept) < len(texts)
    assert digest_texts([kept["text_a"]]) != digest_texts([texts["text_a"]])


FAMILIES: dict[str, dict[str, Any]] = {
    "DistilBert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 64},
    "Roberta": {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
        "max_position_embeddings": 66, "pad_token_id": 0,
    },
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_other_encoders(
    family: str, make_recipe: Callable[..., Recipe], tiny_tokenizer: Any, tmp_path: Path, tiny_teacher_dir: Path
) -> None:
    """A DistilBERT and a RoBERTa, taught by a BERT, hidden states and all."""
    import transformers

    config = getattr(transformers, f"{family}Config")(vocab_size=40, num_labels=2, **FAMILIES[family])
    torch.manual_seed(0)
    getattr(transformers, f"{family}ForSequenceClassification")(config).save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    result = compress(make_recipe(model=str(tmp_path / "model"), teacher=str(tiny_teacher_dir), hidden_loss=1.0))
    assert result.sparsity_reached == pytest.approx(0.6, abs=1e-3)
    assert evaluate(result.out)["metrics"] == result.metrics


def test_the_data_of_the_recipe_is_what_is_trained_on(
    make_recipe: Callable[..., Recipe], tiny_csv: tuple[Path, Path]
) -> None:
    prepared = prepare.prepare(make_recipe(methods="none", max_train_rows=20).validate())
    wanted = load_data("custom", train_file=str(tiny_csv[0]), validation_file=str(tiny_csv[1]), max_train_rows=20).train
    assert wanted is not None and prepared.data.train is not None
    assert prepared.data.train["text_a"][:] == wanted["text_a"][:]
