"""Study files: what cells they give, and one sentence for each that is wrong."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from sparseq.errors import InputError
from sparseq.study import Options, keys, plan_study
from sparseq.study.cells import Cell, cells_of
from sparseq.study.cost import Costs
from sparseq.study.folder import StudyFolder
from sparseq.study.keys import key_of
from sparseq.study.study_file import Study
from sparseq.train import Recipe
from sparseq.train.recipe import PATH_SETTINGS

SUBSETS = '["none", "qat", "kd", "mp", "qat,kd", "qat,mp", "kd,mp", "qat,kd,mp"]'


def cells(path: Path, **changes: object) -> list[Cell]:
    return cells_of(Study.from_file(path, changes))


def grid(text: str) -> str:
    return f'[[grids]]\nname = "g"\n{text}\n'


def test_a_grid_has_every_combination_once(study_file: Callable[..., Path]) -> None:
    found = cells(study_file(grid(f"methods = {SUBSETS}\nsparsity = [0.4, 0.6]\nseed = [0, 1]")))
    # 2 sizes x 2 seeds x (4 subsets without mp, and 4 with it at 2 sparsities); the plain L2 is the teacher.
    assert len(found) == 2 * 2 * (4 + 4 * 2)
    assert len({cell.name for cell in found}) == len({cell.key for cell in found}) == len(found)
    assert Counter(cell.recipe.methods for cell in found)[("mp",)] == 8
    assert all(("sparsity" in cell.varied) == ("mp" in cell.recipe.methods) for cell in found)


def test_each_cell_comes_after_what_it_needs_and_knows_its_teacher(study_file: Callable[..., Path]) -> None:
    found = cells(study_file(grid(f"methods = {SUBSETS}\nseed = [0, 1]")))
    places = {cell.name: number for number, cell in enumerate(found)}
    for cell in found:
        assert all(places[name] < places[cell.name] for name in cell.needs)
        teacher = next(other for other in found if other.name == cell.compared_with)
        assert teacher.is_teacher and teacher.size == "L2" and not teacher.recipe.methods
        assert teacher.recipe.seed == cell.recipe.seed
        assert (cell.taught_by == teacher.name) == ("kd" in cell.recipe.methods)
        assert (cell.starts_from == teacher.name) == (cell.size == "L1")


def test_a_teacher_of_its_own_settings_is_a_cell_of_no_grid(study_file: Callable[..., Path]) -> None:
    found = cells(study_file(grid('methods = ["none", "kd"]\nseed = [0, 1]'), more="[teacher]\nepochs = 2\nseed = 7"))
    teachers = [cell for cell in found if cell.is_teacher]
    assert [(cell.grids, cell.recipe.epochs, cell.recipe.seed) for cell in teachers] == [(("teachers",), 2.0, 7)]
    assert len(found) == 1 + 2 * 2 * 2
    assert all(cell.compared_with == teachers[0].name for cell in found)


def test_settings_that_come_with_a_method(study_file: Callable[..., Path]) -> None:
    found = cells(study_file(grid('methods = ["none", "mp", "qat,mp"]'), more="[with.mp]\nepochs = 3\nsparsity = 0.5"))
    assert {cell.recipe.epochs for cell in found if "mp" in cell.recipe.methods} == {3.0}
    assert {cell.recipe.epochs for cell in found if "mp" not in cell.recipe.methods} == {1.0}
    path = study_file(grid('methods = ["qat,mp"]'), more="[with.mp]\nepochs = 3\n[with.qat]\nepochs = 2")
    with pytest.raises(InputError, match="bring a different epochs"):
        cells(path)


def test_a_run_that_starts_from_the_baseline(study_file: Callable[..., Path]) -> None:
    path = study_file(
        grid('methods = ["none"]') + grid('methods = "qat"\nmodel = "@baseline"\nepochs = 2').replace('"g"', '"h"')
    )
    found = {(cell.size, cell.recipe.methods): cell for cell in cells(path)}
    assert len(found) == 4
    for size in ("L2", "L1"):
        assert found[size, ("qat",)].starts_from == found[size, ()].name
        assert found[size, ("qat",)].recipe.layers is None  # cut before


def test_the_key_follows_settings_and_data_and_not_places(study_file: Callable[..., Path], tmp_path: Path) -> None:
    path = study_file(grid('methods = ["none", "kd"]'))
    before = cells(path)
    moved = tmp_path / "elsewhere.csv"
    moved.write_bytes(Path(str(before[0].recipe.train_file)).read_bytes())
    assert [cell.key for cell in cells(path, train_file=str(moved))] == [cell.key for cell in before]
    moved.write_bytes(moved.read_bytes() + b"a good film,1\n")
    changed = cells(path, train_file=str(moved))  # the same path in the same process
    assert not {cell.key for cell in changed} & {cell.key for cell in before}
    longer = cells(path, max_length=16)
    assert not {cell.key for cell in longer} & {cell.key for cell in before}
    # How often a run writes checkpoints does not matter to its result.
    assert [cell.key for cell in cells(path, save_steps=7)] == [cell.key for cell in before]
    # A setting of a method does not matter to a run without it, but to what learns from a changed teacher it does.
    warmer = cells(path, temperature=3.0)
    assert [a.key == b.key for a, b in zip(warmer, before, strict=True)] == [not a.recipe.methods for a in before]


def test_a_cell_tells_only_what_it_does_not_share_with_its_size(study_file: Callable[..., Path]) -> None:
    """So that labels are short, and the plain run of a size has none of its own: it is the baseline."""
    grids = (
        grid('methods = ["none", "qat", "mp", "qat,mp"]\nsparsity = 0.5')
        + """
[[grids]]
name = "more"
methods = ["none", "qat"]
epochs = [1, 3]
bits = [8, 4]
[[grids]]
name = "scopes"
methods = "mp"
sparsity = 0.5
scope = ["layer", "global"]
"""
    )
    found = cells(study_file(grids, more="[teacher]\nlr = 2e-3\n[with.mp]\nepochs = 2"))
    told = {(cell.size, cell.recipe.methods, repr(sorted(cell.varied.items()))) for cell in found}
    for size in ("L2", "L1"):
        assert (size, (), "[]") in told and (size, (), "[('epochs', 3.0)]") in told
        assert (size, ("qat",), "[]") in told and (size, ("qat",), "[('bits', 4), ('epochs', 3.0)]") in told
        # Without a scope: global, which the criterion has by itself.
        assert (size, ("mp",), "[('epochs', 2.0)]") in told
        assert (size, ("mp",), "[('epochs', 2.0), ('scope', 'layer')]") in told
    assert [dict(cell.varied) for cell in found if cell.is_teacher] == [{"lr": 2e-3}]


def test_a_criterion_is_told_where_it_varies_and_the_scope_that_follows_is_not(study_file: Callable[..., Path]) -> None:
    grids = grid('methods = "mp"\ncriterion = ["magnitude", "fisher"]')
    found = [cell for cell in cells(study_file(grids)) if cell.recipe.uses("mp")]
    assert {cell.recipe.scope for cell in found} == {"lamp", "global"}
    assert [set(cell.varied) - {"sparsity", "pattern"} for cell in found] == [{"criterion"}] * len(found)
    alone = cells(study_file(grid('methods = "mp"'), more="[with.mp]\ncriterion = 'magnitude'"))
    assert not any("criterion" in cell.varied or "scope" in cell.varied for cell in alone)


def former_key(recipe: Recipe, without: str = "") -> str:
    """The key as the first version made it, of a recipe whose files are patched away."""
    values = {
        name: getattr(recipe, name)
        for name in recipe.in_use()
        if name not in (*PATH_SETTINGS, without) and getattr(recipe, name) != getattr(Recipe(), name)
    }
    document = json.dumps({**values, "model": "_of_model", "data": "_of_data"}, sort_keys=True)
    return hashlib.sha256(document.encode()).hexdigest()


@pytest.fixture
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_of_model", "_of_data"):
        monkeypatch.setattr(keys, name, lambda given, name=name: name)


@pytest.mark.usefixtures("no_files")
def test_a_number_of_layers_has_a_key_of_its_own() -> None:
    """Runs of before kept others, and their results must not count for the ones that are kept now."""
    recipe = Recipe(model="m", task="sst2", methods=(), layers=3, out="o").resolved()
    assert key_of(recipe) != former_key(recipe)
    listed = recipe.replace(layers=(0, 2, 4))
    assert key_of(listed) == former_key(listed)


@pytest.mark.usefixtures("no_files")
def test_runs_of_before_there_was_a_criterion_keep_their_keys() -> None:
    """They ranked weights by magnitude, and the setting was not part of the key."""
    recipe = Recipe(model="m", task="sst2", methods=("mp",), sparsity=0.5, criterion="magnitude", out="o").resolved()
    assert recipe.scope == "lamp" and key_of(recipe) == former_key(recipe, without="criterion")
    assert key_of(recipe.replace(criterion="fisher", scope="lamp")) != key_of(recipe)


def test_more_grids_do_not_rename_a_cell(study_file: Callable[..., Path]) -> None:
    """A study that grows in its folder goes on with what is done."""
    subsets = grid('methods = ["none", "qat", "qat,mp"]')
    more = grid('methods = "qat"\nbits = [4, 16]\nlr = [1e-3, 1e-4]\nseed = [0, 1]').replace('"g"', '"h"')
    before = {cell.name: cell.key for cell in cells(study_file(subsets))}
    after = {cell.name: cell.key for cell in cells(study_file(subsets + more))}
    assert before.items() <= after.items() and len(after) > len(before)


def test_a_file_that_no_run_reads_does_not_change_a_key(tmp_path: Path, tiny_model_dir: Path) -> None:
    folder = tmp_path / "SST-2"
    folder.mkdir()
    for name in ("train.tsv", "dev.tsv"):
        (folder / name).write_text("sentence\tlabel\ngood film\t1\nbad film\t0\n", encoding="utf-8")
    recipe = Recipe(model=str(tiny_model_dir), task="sst2", data_dir=str(tmp_path))
    before = key_of(recipe)
    (folder / "README.txt").write_text("notes")
    assert key_of(recipe) == before
    (folder / "dev.tsv").write_text("sentence\tlabel\ngood film\t1\n", encoding="utf-8")
    assert key_of(recipe) != before


def test_the_wordnet_that_is_found_belongs_to_the_key(
    tmp_path: Path, tiny_model_dir: Path, tiny_csv: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"train_file": str(tiny_csv[0]), "validation_file": str(tiny_csv[1])}
    recipe = Recipe(model=str(tiny_model_dir), augment_copies=1, **files)  # type: ignore[arg-type]
    (tmp_path / "data.noun").write_text("one")
    monkeypatch.setattr("sparseq.study.keys.find_wordnet", lambda path: tmp_path)
    before = key_of(recipe)
    (tmp_path / "data.noun").write_text("another")
    assert key_of(recipe) != before
    assert key_of(recipe.replace(augment_copies=0)) == key_of(Recipe(model=str(tiny_model_dir), **files))  # type: ignore[arg-type]


BAD = {
    "unknown name": ('[[grids]]\nname = "g"\nmetods = ["qat"]', "did you mean 'methods'"),
    "unknown method": (grid('methods = ["qat", "kp"]'), "unknown method 'kp'"),
    "wrong value": (grid("sparsity = [0.5, 1.5]"), "sparsity"),
    "wrong type": (grid('epochs = ["many"]'), "epochs"),
    "empty axis": (grid("sparsity = []"), "sparsity is an empty list"),
    "value twice": (grid("sparsity = [0.5, 0.50]"), "value twice"),
    "unknown size": (grid('sizes = ["L9"]'), "there is no size 'L9': the sizes are L2, L1"),
    "no sizes": (grid("sizes = []"), "sizes is a list"),
    "grid without a name": ("[[grids]]\nsparsity = [0.5]", "has no name"),
    "grids of one name": (grid("") + grid(""), "two grids named 'g'"),
    "no grid": ("", "has no grids"),
    "out": (grid('out = "x"'), "a study gives each run itself"),
    "long name": ('[[grids]]\nname = "' + "\u8a9e" * 30 + '"', "at most 60 letters (fewer outside ASCII)"),
    "too many cells": (
        grid("\n".join(f"{a} = {list(range(1, 80))}" for a in ("seed", "batch_size", "epochs"))),
        "986,078 cells",
    ),
    "no model of a study": (grid('sizes = ["L1"]\nmodel = "@techer"'), "there is no model '@techer'"),
    "a teacher of the study": (grid('teacher = "@teacher"'), "leave teacher out"),
    "grid and size": (grid('methods = ["none"]\nlayers = [1, 2]'), "both set layers"),
    "baseline of a baseline": (grid('methods = ["none"]\nmodel = "@baseline"'), "cannot start from it"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_file_gets_one_sentence(case: str, study_file: Callable[..., Path]) -> None:
    text, said = BAD[case]
    with pytest.raises(InputError) as error:
        cells(study_file(text))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_sizes_with_the_same_settings_clash(study_file: Callable[..., Path]) -> None:
    path = study_file(grid('methods = ["qat"]'), sizes='[[sizes]]\nname = "again"\nmodel = "@teacher"\nlayers = 1')
    with pytest.raises(InputError, match="the sizes 'L1' and 'again' have the same settings"):
        cells(path)


def test_a_file_without_a_name_and_a_file_that_is_no_study(study_file: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no name"):
        cells(study_file(name=""))
    with pytest.raises(InputError, match=r"is no \.toml"):
        cells(tmp_path / "study.yaml")
    with pytest.raises(InputError, match="there is no file"):
        cells(tmp_path / "none.toml")


def test_own_files_that_cannot_be_read(study_file: Callable[..., Path], tmp_path: Path) -> None:
    path = study_file()
    os.mkfifo(tmp_path / "pipe.csv")
    for name, said in (
        ("pipe.csv", "is not a regular file"),
        ("none.csv", "No such file"),
        (".", "not a regular file"),
    ):
        with pytest.raises(InputError, match=said):
            cells(path, train_file=str(tmp_path / name))
    path.write_text("".join(line for line in path.open(encoding="utf-8") if not line.startswith("validation_file")))
    with pytest.raises(InputError, match="--validation-file"):
        plan_study(path, tmp_path / "study", Options(), {})


def test_cells_of_one_name_get_more_digits(study_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys may begin with the same digits."""
    monkeypatch.setattr("sparseq.study.cells.DIGITS", 0)
    path = study_file(grid('methods = "qat"\nepochs = [1, 2]\nsizes = ["L1"]'))
    names = [cell.name for cell in cells(path)]
    assert len(set(names)) == len(names) == 3
    first, second = (name for name in names if "qat" in name)
    assert second.startswith(first) and len(second) == len(first) + 1


def test_the_longest_names_fit(study_file: Callable[..., Path], tmp_path: Path) -> None:
    path = study_file(grid('methods = "qat,kd,mp"\npattern = "unstructured"\nsparsity = 0.123456\nbits = 16'))
    path.write_text(path.read_text("utf-8").replace("L1", "\u8a9e" * 20).replace("words", "\u00e9" * 30), "utf-8")
    found = cells(path)
    folder = StudyFolder(tmp_path / "study")
    for cell in found:
        folder.begin(Study.from_file(path), found)
        folder.mark(cell)
        assert not folder.is_done(cell)


def test_the_cost_of_a_run_that_starts_from_a_smaller_one(study_file: Callable[..., Path]) -> None:
    found = cells(study_file(grid('sizes = ["L1"]\nmethods = "qat"\nmodel = "@baseline"')))
    disk = {cell.recipe.methods: Costs(found).of(cell).disk for cell in found if cell.size == "L1"}
    assert disk[("qat",)] * 4 == disk[()]
