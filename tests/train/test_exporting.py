"""A finished run as an ONNX file, which is evaluated and predicts like the run's folder."""

import json
import shutil

import pytest
from refusals import refused, refused_run

from sparseq.cli import main
from sparseq.train import Recipe, compress, evaluate, predict

TEXTS = [("good film",), ("the plot was awful and dull",), ("a",)]


@pytest.fixture(scope="module")
def run(tiny_model_dir, tiny_csv, tmp_path_factory):
    """A finished run of dynamic activations."""
    out = tmp_path_factory.mktemp("run") / "out"
    recipe = {"model": str(tiny_model_dir), "methods": "qat,mp", "epochs": 1, "max_length": 16, "out": str(out)}
    compress(Recipe.from_dict({**recipe, "train_file": str(tiny_csv[0]), "validation_file": str(tiny_csv[1])}))
    return out


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """That run's file, of products of integers."""
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    assert main(["export", str(run), "--out", str(path)]) == 0
    return path


@pytest.mark.slow
def test_it_has_the_scores_and_predictions_of_its_run(run, exported, tiny_csv, capsys):
    before, after = evaluate(run), evaluate(exported)
    assert {**after, "metrics": None, "score": None} == {**before, "metrics": None, "score": None}
    assert after["score"] == pytest.approx(before["score"], abs=1 / 40)  # one row of forty may be on the line
    assert evaluate(exported, validation_file=str(tiny_csv[0]))["rows"] == {"validation": 66}
    for ours, theirs in zip(predict(exported, TEXTS), predict(run, TEXTS), strict=True):
        assert ours.label == theirs.label and ours.value == pytest.approx(theirs.value, abs=1e-3)
    capsys.readouterr()
    assert main(["evaluate", str(exported), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == after


@pytest.mark.slow
def test_what_the_command_prints_and_pairs_from_training_rows(run, exported, tmp_path, capsys):
    path = exported.with_name("qdq.onnx")  # beside the other form: config.json and the tokenizer are the same
    command = ["export", run, "--form", "qdq", "--calibration-rows", "20", "--out", path]
    assert main([*map(str, command), "--json"]) == 0
    said = capsys.readouterr()
    assert "one scale for each layer, found from 20 training rows" in said.err
    found = json.loads(said.out)
    assert found == {"path": str(path), "form": "qdq", "bytes": path.stat().st_size, "integer_products": 14}
    assert 0 <= evaluate(path)["score"] <= 1
    moved = shutil.copytree(exported.parent, tmp_path / "moved") / "model.onnx"
    (moved.parent / "tokenizer.json").write_text((moved.parent / "tokenizer.json").read_text().replace("good", "gold"))
    assert "is not the one that was saved with its model" in refused_run(capsys, ["evaluate", str(moved)])


def test_what_is_refused(run, tmp_path, capsys):
    out = tmp_path / "new" / "model.onnx"
    assert "give --calibration-rows N" in refused(capsys, "export", run, "--form", "qdq", "--out", out)
    assert "--calibration-rows goes with --form qdq" in refused(
        capsys, "export", run, "--calibration-rows", 5, "--out", out
    )
    assert "wants a whole number of at least 1" in refused(capsys, "export", run, "--calibration-rows", 0, "--out", out)
    assert "form is 'int8'" in refused(capsys, "export", run, "--form", "int8", "--out", out)
    assert "ends in .onnx" in refused(capsys, "export", run, "--out", tmp_path / "model")
    assert "already holds another tokenizer_config.json" in refused(capsys, "export", run, "--out", run / "model.onnx")
    assert "there is no folder" in refused(capsys, "export", tmp_path / "absent", "--out", out)
    assert "is exported already" in refused(capsys, "export", "model.onnx", "--out", out)
    assert "there is no file" in refused(capsys, "evaluate", out)
    assert not out.parent.exists()
