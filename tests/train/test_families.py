"""Every family of encoders through a whole run, with a tokenizer of its own kind: or a refusal before the training."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sparseq import checkpoint, models
from sparseq.cli import main
from sparseq.errors import InputError
from sparseq.models import keep_layers
from sparseq.train import Recipe, RunResult, compress, evaluate, predict
from sparseq.train.progress import Reporter
from sparseq.train.trial import check_reads, check_rebuilds
from tests.conftest import sentences, write_rows
from tests.families import FAMILIES, LENGTH, make_family

QUIET = Reporter(silent=True)


@pytest.fixture(scope="module")
def family_dir(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a family's tiny model, made once."""
    made: dict[tuple[str, str], Path] = {}

    def get(name: str, **changes: Any) -> Path:
        key = (name, repr(changes))
        if key not in made:
            made[key] = make_family(name, tmp_path_factory.mktemp(name), **changes)
        return made[key]

    return get


def small(make_recipe: Callable[..., Recipe], model: Path, **changes: Any) -> Recipe:
    """Two steps of all three methods on two of the four layers."""
    settings = {
        "model": str(model), "teacher": str(model), "layers": 2, "max_train_rows": 16, "max_validation_rows": 8,
        "epochs": 1, "prune_updates": 1,
    }  # fmt: skip
    return make_recipe(**{**settings, **changes})


# The families that differ most; the others run with the slow tests.
DIFFERENT = ("distilbert", "albert", "mpnet", "modernbert")
ALL = [pytest.param(name, marks=() if name in DIFFERENT else pytest.mark.slow) for name in FAMILIES]


@pytest.mark.parametrize("name", ALL)
def test_all_three_methods_on_two_of_the_layers(
    name: str, family_dir: Callable[..., Path], make_recipe: Callable[..., Recipe]
) -> None:
    result = compress(small(make_recipe, family_dir(name), max_length=LENGTH), reporter=QUIET)
    assert checkpoint.load(result.out).config.num_hidden_layers == 2
    assert result.score == result.score_before_packing and result.bits == 8
    assert result.sparsity_reached == pytest.approx(0.6, abs=0.01)
    assert result.teacher_score is not None
    assert evaluate(result.out, reporter=QUIET)["metrics"] == result.metrics
    assert predict(result.out, [("the film was good",)])[0].label in ("0", "1")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{"methods": "none", "layers": None}, {"methods": "kd", "hidden_loss": 1.0}, {"bits": 4, "activation": "static"},
     {"pattern": "2:4", "sparsity": 0.5, "scale": "lsq", "prune_embeddings": False}, {"layers": (0, 3)}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("name", FAMILIES)
def test_each_method_alone(
    name: str, changes: dict[str, Any], family_dir: Callable[..., Path], make_recipe: Callable[..., Recipe]
) -> None:
    result = compress(small(make_recipe, family_dir(name), **changes), reporter=QUIET)
    assert evaluate(result.out, reporter=QUIET)["metrics"] == result.metrics


@pytest.mark.parametrize("name", FAMILIES)
def test_as_many_tokens_as_there_are_positions_and_no_more(name: str, family_dir: Callable[..., Path]) -> None:
    model, tokenizer = models.load_model(family_dir(name), num_labels=2)
    tokenizer.model_max_length = 10**6  # as most hub models' is, or close to it
    reads: dict[str, Any] = {"pairs": False, "num_labels": 2, "name": name}
    row, logits = check_reads(model, tokenizer, LENGTH, **reads)
    assert row["input_ids"].shape == (1, LENGTH) and logits.shape == (1, 2)
    for length in (LENGTH + 1, LENGTH + 2, LENGTH + 3, 10 * LENGTH):
        if length <= model.config.max_position_embeddings and not FAMILIES[name].offset:
            continue
        with pytest.raises(InputError, match=f"--max-length {length} is more than the {LENGTH} tokens that {name}"):
            check_reads(model, tokenizer, length, **reads)


@pytest.mark.parametrize("name", ["mpnet", "camembert"])
def test_too_long_is_refused_before_training(
    name: str, family_dir: Callable[..., Path], make_recipe: Callable[..., Recipe]
) -> None:
    folder = family_dir(name, max_position_embeddings=LENGTH)  # two of them before the first token's
    recipe = small(make_recipe, folder, max_length=LENGTH)
    with pytest.raises(InputError, match=f"--max-length {LENGTH} is more than the {LENGTH - 2} tokens"):
        compress(recipe, reporter=QUIET)
    assert not Path(str(recipe.out)).exists()


CUTS = [3, (0, 3), *(pytest.param(layers, marks=pytest.mark.slow) for layers in (1, 4, (3, 0)))]


@pytest.mark.parametrize("layers", CUTS, ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_cut_model_is_the_same_saved_and_loaded(
    name: str, layers: Any, family_dir: Callable[..., Path], tmp_path: Path
) -> None:
    model, tokenizer = models.load_model(family_dir(name), num_labels=2, layers=layers)
    row, logits = check_reads(model, tokenizer, LENGTH, pairs=True, num_labels=2, name=name)
    if name == "modernbert" and layers in ((3, 0), 1):  # whose first layer has one norm less than the others
        with pytest.raises(InputError, match="keep its first layer as the first"):
            check_rebuilds(model, row, logits, name)
        return
    check_rebuilds(model, row, logits, name)
    checkpoint.save(model, tmp_path, tokenizer)
    with torch.no_grad():
        torch.testing.assert_close(checkpoint.load(tmp_path)(**row).logits, logits, rtol=1e-4, atol=1e-5)
    again, _ = models.load_model(tmp_path, num_labels=2, teacher=True)  # transformers reads it too
    with torch.no_grad():
        torch.testing.assert_close(again(**row).logits, logits, rtol=1e-4, atol=1e-5)


def test_lists_by_layer_are_cut_and_others_are_not(family_dir: Callable[..., Path]) -> None:
    modern, _ = models.load_model(family_dir("modernbert"), num_labels=2)
    assert modern.config.layer_types == ["full_attention", *["sliding_attention"] * 2, "full_attention"]
    keep_layers(modern, (0, 2))
    assert modern.config.layer_types == ["full_attention", "sliding_attention"]
    deberta, _ = models.load_model(family_dir("deberta-v2", num_hidden_layers=2), num_labels=2)
    assert len(deberta.config.pos_att_type) == 2
    keep_layers(deberta, 1)
    assert len(deberta.config.pos_att_type) == 2


def test_layers_that_share_their_weights(family_dir: Callable[..., Path]) -> None:
    one, _ = models.load_model(family_dir("albert"), num_labels=2)
    assert keep_layers(one, 3) == (0, 2, 3) and one.config.num_hidden_layers == 3
    two, _ = models.load_model(family_dir("albert", num_hidden_groups=2), num_labels=2)
    with pytest.raises(InputError, match="share the weights of 2 groups in turn"):
        keep_layers(two, (0, 1))
    assert keep_layers(two, 2) == (0, 3)


def test_a_model_whose_layers_cannot_be_cut_is_refused() -> None:
    from transformers import FunnelConfig, FunnelForSequenceClassification

    config = FunnelConfig(vocab_size=30, d_model=16, n_head=2, d_head=8, d_inner=16, block_sizes=[1, 1])
    with pytest.raises(InputError, match="FunnelForSequenceClassification has no single number of layers to cut"):
        keep_layers(FunnelForSequenceClassification(config), 1)


def test_longformers_windows_are_cut_with_its_layers() -> None:
    from transformers import LongformerConfig, LongformerForSequenceClassification

    shape = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
    model = LongformerForSequenceClassification(LongformerConfig(vocab_size=30, attention_window=[4, 6, 8], **shape))
    keep_layers(model, (0, 2))
    assert model.config.attention_window == [4, 8]


def test_what_cannot_be_saved_is_refused_before_training(
    family_dir: Callable[..., Path], make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose configuration does not say how it was cut."""
    monkeypatch.setattr(models.cutting, "_PER_BLOCK", models.cutting.re.compile("nothing"))
    recipe = small(make_recipe, family_dir("modernbert"))
    with pytest.raises(InputError, match="could not be saved and loaded back after training"):
        compress(recipe, reporter=QUIET)
    assert not Path(str(recipe.out)).exists()


def test_state_that_no_file_holds_is_refused_before_training(
    family_dir: Callable[..., Path], make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sparseq.train import prepare

    load = prepare.load_model

    def altered(*args: Any, **kwargs: Any) -> Any:
        model, tokenizer = load(*args, **kwargs)
        model.classifier.register_forward_hook(lambda module, given, found: found + 1)
        return model, tokenizer

    monkeypatch.setattr(prepare, "load_model", altered)
    with pytest.raises(InputError, match="would give other logits once saved and loaded back"):
        compress(small(make_recipe, family_dir("bert")), reporter=QUIET)


@pytest.mark.processor
@pytest.mark.parametrize(
    ("student", "teacher", "segments"),
    [("distilbert", "bert", True), ("bert", "distilbert", False), ("bert", "electra", True)],
)
def test_each_model_gets_its_own_inputs(
    student: str,
    teacher: str,
    segments: bool,
    family_dir: Callable[..., Path],
    make_recipe: Callable[..., Recipe],
    tiny_regression_csv: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The hidden states of a teacher that runs during training are those that it has on its own inputs."""
    from sparseq.hf import distillation

    seen: list[dict[str, Any]] = []
    compare = distillation.hidden_state_loss

    def watched(own: Any, taught: Any, mask: Any) -> Any:
        seen.append({"taught": taught, "mask": mask})
        return compare(own, taught, mask)

    given: list[dict[str, Any]] = []
    inputs = distillation.teachers_inputs
    monkeypatch.setattr(distillation, "teachers_inputs", lambda batch: given.append(inputs(batch)) or given[-1])
    monkeypatch.setattr(distillation, "hidden_state_loss", watched)
    changes = {"num_labels": 1, "problem_type": "regression"}
    recipe = small(
        make_recipe, family_dir(student, **changes), teacher=str(family_dir(teacher, seed=2, **changes)), methods="kd",
        train_file=str(tiny_regression_csv[0]), validation_file=str(tiny_regression_csv[1]), hidden_loss=1.0,
        text_columns="sentence1,sentence2", max_validation_rows=None, precision="fp32",
    )  # fmt: skip
    compress(recipe, reporter=QUIET)
    assert given and len(seen) == len(given)
    for batch in given:
        assert ("token_type_ids" in batch) is segments
        if segments:
            assert set(batch["token_type_ids"].unique().tolist()) == {0, 1}
    teaching, _ = models.load_model(recipe.teacher, num_labels=1, regression=True, teacher=True)
    with torch.no_grad():
        states = teaching(**given[0], output_hidden_states=True).hidden_states
    torch.testing.assert_close(seen[0]["taught"][0], states[2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen[0]["taught"][1], states[4], rtol=1e-4, atol=1e-5)


def test_segments_are_asked_of_a_tokenizer_that_does_not_tell_them(family_dir: Callable[..., Path]) -> None:
    model, tokenizer = models.load_model(family_dir("albert"), num_labels=2)
    assert "token_type_ids" not in tokenizer("good", "bad")
    row, _ = check_reads(model, tokenizer, 16, pairs=True, num_labels=2, name="albert")
    assert row["token_type_ids"].unique().tolist() == [0, 1]
    roberta, tokenizer = models.load_model(family_dir("roberta"), num_labels=2)
    row, _ = check_reads(roberta, tokenizer, 16, pairs=True, num_labels=2, name="roberta")
    assert "token_type_ids" not in row


def test_tokenizers_that_split_otherwise_cannot_share_hidden_states(
    family_dir: Callable[..., Path], make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """The same vocabulary, and another normaliser."""
    other = tmp_path / "cased"
    shutil.copytree(family_dir("bert"), other)
    settings = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps({**settings, "do_lower_case": False}))
    rows = [{**row, "sentence": str(row["sentence"]).title()} for row in sentences(16, 0)]
    recipe = small(
        make_recipe, family_dir("bert"), teacher=str(other), hidden_loss=1.0,
        train_file=str(write_rows(tmp_path / "train.csv", rows)),
    )  # fmt: skip
    with pytest.raises(InputError, match=r"tokenizers split training row \d+ differently"):
        compress(recipe, reporter=QUIET)


def test_the_command_line_on_a_family_by_pairs(
    family_dir: Callable[..., Path],
    make_recipe: Callable[..., Recipe],
    tiny_regression_csv: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    folder = str(family_dir("modernbert", num_labels=1, problem_type="regression"))
    out = tmp_path / "out"
    train, validation = map(str, tiny_regression_csv)
    command = [
        "compress", "--model", folder, "--teacher", folder, "--layers", "2", "--train-file", train, "--validation-file",
        validation, "--epochs", "1", "--max-train-rows", "16", "--max-length", "32", "--quiet", "--out", str(out),
    ]  # fmt: skip
    assert main(command) == 0
    assert RunResult.from_folder(out).methods == ("qat", "kd", "mp")
