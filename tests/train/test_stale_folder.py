"""A folder whose run read other data or models than the same command would read now."""

import csv
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from broken_runs import Listening, break_off
from safetensors.torch import load_file, save_file

from sparseq.errors import InputError
from sparseq.train import Recipe, RunResult, compress
from sparseq.train.fingerprint import LIBRARIES
from sparseq.train.folder import METRICS, RECIPE, RunFolder


class Sources:
    """A run's data and models in a folder of their own, to be changed."""

    def __init__(self, recipe: Recipe, folder: Path) -> None:
        self.paths = {}
        for name in ("model", "teacher", "train_file", "validation_file"):
            given = Path(getattr(recipe, name))
            self.paths[name] = folder / f"{name}{given.suffix}"
            (shutil.copytree if given.is_dir() else shutil.copy)(given, self.paths[name])
        self.recipe = recipe.replace(**{name: str(path) for name, path in self.paths.items()})


@pytest.fixture
def sources(make_recipe: Callable[..., Recipe], tmp_path: Path) -> Sources:
    folder = tmp_path / "sources"
    folder.mkdir()
    return Sources(make_recipe(methods="kd", epochs=1, save_steps=4), folder)


@pytest.fixture(scope="module")
def begun(
    tiny_model_dir: Path,
    tiny_teacher_dir: Path,
    tiny_csv: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Sources, Recipe, RunResult]]:
    """(sources, the recipe of a run broken off after 6 steps, the result of the same run that has finished)."""
    given = {
        "model": str(tiny_model_dir), "teacher": str(tiny_teacher_dir), "train_file": str(tiny_csv[0]),
        "validation_file": str(tiny_csv[1]), "methods": "kd", "max_length": 32, "batch_size": 8, "epochs": 1,
        "save_steps": 4, "precision": "fp32",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEQ_CACHE", str(tmp_path_factory.mktemp("cache")))
        sources = Sources(Recipe.from_dict(given), tmp_path_factory.mktemp("sources"))
        broken, finished = (sources.recipe.replace(out=str(tmp_path_factory.mktemp(n))) for n in ("broken", "finished"))
        break_off(broken, after=6)
        yield sources, broken, compress(finished)


def rewrite(path: Path, change: Callable[[list[dict[str, str]]], Any], **options: Any) -> None:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    change(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), **options)
        writer.writeheader()
        writer.writerows(rows)


def flip_label(rows: list[dict[str, str]]) -> None:
    rows[3]["label"] = str(1 - int(rows[3]["label"]))


def change_word(rows: list[dict[str, str]]) -> None:
    rows[5]["sentence"] += " film"


def drop_row(rows: list[dict[str, str]]) -> None:
    del rows[-1]


def swap_rows(rows: list[dict[str, str]]) -> None:
    rows[0], rows[1] = rows[1], rows[0]


def change_weight(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors["classifier.bias"][0] += 1e-4
    save_file(tensors, path, {"format": "pt"})


def change_config(folder: Path) -> None:
    path = folder / "config.json"
    text = path.read_text()
    assert '"gelu"' in text
    path.write_text(text.replace('"gelu"', '"relu"'))


def change_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = folder / name
        path.write_text(
            path.read_text()
            .replace('"lowercase": true', '"lowercase": false')
            .replace('"do_lower_case": true', '"do_lower_case": false')
        )


CHANGES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "a label": ("train_file", lambda path: rewrite(path, flip_label), "training data has changed"),
    "a text": ("train_file", lambda path: rewrite(path, change_word), "training data has changed"),
    "a row less": ("train_file", lambda path: rewrite(path, drop_row), "training data has changed"),
    "rows in another order": ("train_file", lambda path: rewrite(path, swap_rows), "training data has changed"),
    "a validation label": ("validation_file", lambda path: rewrite(path, flip_label), "validation data has changed"),
    "the model's weights": ("model", change_weight, "model has changed"),
    "the model's configuration": ("model", change_config, "model has changed"),
    "the model's tokenizer": ("model", change_tokenizer, "model's tokenizer has changed"),
    "the teacher's weights": ("teacher", change_weight, "teacher has changed"),
    "the teacher's configuration": ("teacher", change_config, "teacher has changed"),
    "the teacher's tokenizer": ("teacher", change_tokenizer, "teacher's tokenizer has changed"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_is_not_taken_for_another(change: str, begun: tuple[Sources, Recipe, RunResult], tmp_path: Path) -> None:
    """Neither where it was broken off nor where it has finished."""
    sources, broken, result = begun
    name, alter, sentence = CHANGES[change]
    path = sources.paths[name]
    copy = (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / "copy")
    alter(path)
    try:
        for recipe in (broken, broken.replace(out=result.out)):
            with pytest.raises(InputError, match=f"already holds a run with these settings, but the {sentence} since"):
                compress(recipe)
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        os.replace(copy, path)
    last = RunFolder(str(broken.out)).last_checkpoint()
    assert last is not None and last[1].step == 4
    assert RunResult.from_folder(result.out) == result


def test_the_same_in_another_spelling(sources: Sources, tmp_path: Path) -> None:
    compress(sources.recipe)
    rewrite(sources.paths["train_file"], lambda rows: None, lineterminator="\n", quoting=csv.QUOTE_ALL)
    os.utime(sources.paths["model"] / "model.safetensors")
    assert compress(sources.recipe).finished_before


def test_a_finished_run_says_so(sources: Sources) -> None:
    first, second = Listening(), Listening()
    result = compress(sources.recipe, reporter=first)
    again = compress(sources.recipe, reporter=second)
    assert again == result
    assert (result.finished_before, again.finished_before) == (False, True)
    assert not any("finished before" in line for line in first.said)
    assert f"{sources.recipe.out}: finished before, not run again" in second.said
    assert "finished_before" not in (RunFolder(result.out).path / METRICS).read_text()


@pytest.mark.parametrize(
    "gone", [("train_file",), ("validation_file",), ("teacher",), ("train_file", "model")], ids=",".join
)
def test_sources_that_are_gone_are_not_compared(gone: tuple[str, ...], sources: Sources) -> None:
    result = compress(sources.recipe)
    for name in gone:
        path = sources.paths[name]
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    listening = Listening()
    assert compress(sources.recipe, reporter=listening) == result
    told = [line for line in listening.said if "cannot tell whether" in line]
    named = {"data" if name.endswith("file") else name for name in gone}
    assert {line.split()[4] for line in told} == named


def test_what_is_left_is_compared_all_the_same(sources: Sources) -> None:
    compress(sources.recipe)
    sources.paths["train_file"].unlink()
    change_weight(sources.paths["teacher"])
    with pytest.raises(InputError, match="teacher has changed"):
        compress(sources.recipe)


def test_relative_paths_of_files_that_are_gone(sources: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder's recipe has the whole path, and the command the name alone, which leads nowhere now."""
    path = sources.paths["train_file"]
    monkeypatch.chdir(path.parent)
    recipe = sources.recipe.replace(train_file=path.name)
    result = compress(recipe)
    path.unlink()
    assert compress(recipe) == result


def test_a_source_that_cannot_be_read_any_more(sources: Sources) -> None:
    compress(sources.recipe)
    sources.paths["train_file"].write_text("sentence,label\n")
    with pytest.raises(InputError, match=r"train_file\.csv"):
        compress(sources.recipe)


def test_what_older_versions_left(sources: Sources) -> None:
    """Metrics without a fingerprint, threads and processor."""
    result = compress(sources.recipe)
    held = RunFolder(result.out)
    metrics = held.metrics()
    assert metrics["threads"] >= 1 and metrics["processor"]
    for name in ("fingerprint", "threads", "processor"):
        del metrics[name]
    held.finish(metrics)
    listening = Listening()
    again = compress(sources.recipe, reporter=listening)
    assert (again.score, again.threads, again.fingerprint) == (result.score, None, {})
    assert any("an older version ran it" in line for line in listening.said)


def test_a_run_without_checkpoints_yet(sources: Sources) -> None:
    """It is not begun anew with other data under the same name either."""
    break_off(sources.recipe, after=1)
    assert (RunFolder(str(sources.recipe.out)).path / RECIPE).exists()
    rewrite(sources.paths["train_file"], flip_label)
    with pytest.raises(InputError, match="training data has changed"):
        compress(sources.recipe)


@pytest.mark.parametrize("harm", ["missing", "cut", "altered"])
def test_a_finished_run_whose_model_is_damaged(
    harm: str, begun: tuple[Sources, Recipe, RunResult], tmp_path: Path
) -> None:
    result = begun[2]
    out = shutil.copytree(result.out, tmp_path / "copy")
    weights = out / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + (b"" if harm == "cut" else bytes([content[-1] ^ 1])))
    if harm == "missing":
        weights.unlink()
    with pytest.raises(InputError, match="holds a finished run whose model is damaged"):
        compress(begun[0].recipe.replace(out=str(out)))


def test_other_versions_of_the_libraries(begun: tuple[Sources, Recipe, RunResult], tmp_path: Path) -> None:
    """They may describe the same model otherwise: that is said, and is no reason to refuse; data are still compared."""
    _, broken, result = begun
    out = shutil.copytree(result.out, tmp_path / "finished")
    held = RunFolder(out)
    metrics = held.metrics()
    metrics["fingerprint"] |= {"model": "0", "teacher's tokenizer": "0", LIBRARIES: "transformers 5.0"}
    held.finish(metrics)
    listening = Listening()
    assert compress(broken.replace(out=str(out)), reporter=listening).score == result.score
    told = [line for line in listening.said if "cannot tell whether" in line]
    assert len(told) == 2 and all("it was read with transformers 5.0, and now with torch" in line for line in told)
    metrics["fingerprint"]["training data"] = "0"
    held.finish(metrics)
    with pytest.raises(InputError, match="but the training data has changed since"):
        compress(broken.replace(out=str(out)))
    begun_before = RunFolder(tmp_path / "unfinished")
    (tmp_path / "unfinished").mkdir()
    begun_before.begin(broken, {"model": "0", LIBRARIES: "transformers 5.0"})
    assert "whether the model is still the same" in begun_before.begin(broken, {"model": "1", LIBRARIES: "5.1"})[0]
    with pytest.raises(InputError, match="the model has changed"):
        begun_before.begin(broken, {"model": "1", LIBRARIES: "transformers 5.0"})
