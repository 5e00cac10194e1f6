"""The goals of whole models, and the figure of accuracy against latency."""

import json

import pytest

from bench import common, frontier, model_goals, render, tables, whole_models, workloads
from bench.studies import model
from bench.whole_models import DENSE, sparse_name
from sparseq import InputError


def goal_result(tmp_path, ratio, flags):
    seconds = {name: {"median": 1.0, "low": 1.0, "high": 1.0, "confidence": 1.0} for name in (DENSE, "OpenVINO, int8")}
    row = {
        "case": {"model": "MiniLM-L6", "workload": "8 x 128"},
        "seconds": seconds,
        "sentences_per_second": dict.fromkeys(seconds, 8.0),
        "ratios": [{"of": DENSE, "to": "OpenVINO, int8", "median": ratio, "low": ratio, "high": ratio}],
    }
    path = common.write_result("model", [row], {}, tmp_path)
    result = json.loads(path.read_text())
    result["machine"]["flags"] = flags
    path.write_text(json.dumps(result))


@pytest.mark.parametrize(
    ("ratio", "flags", "cell"),
    [
        (0.8, ["avx512_vnni"], "0.8 [0.8, 0.8] met"),
        (0.9, ["avx512_vnni"], "0.9 [0.9, 0.9] missed"),
        (0.9, ["avx2"], "0.9 [0.9, 0.9]"),
    ],
)
def test_goals_are_judged_where_they_are_stated_for(tmp_path, ratio, flags, cell):
    goal_result(tmp_path, ratio, flags)
    text = tables.filled("<!-- table: model_goals -->\n<!-- end -->", tmp_path, "cpu")
    assert f"| MiniLM-L6, 8 x 128: {DENSE} | 0.85 | {cell} |" in text


def test_every_goal_is_of_what_the_command_times():
    candidates = {DENSE, *map(sparse_name, whole_models.SPARSITIES)}
    timed = {
        (whole_models.SIZES[size].name, workloads.real_name("SST-2 dev") if shape == model.REAL else shape)
        for size, shapes in model.SHAPES_OF.items()
        for shape in shapes
    }
    for goal in model_goals.GOALS:
        assert (goal.model, goal.workload) in timed and goal.candidate in candidates


def figure_result(scores):
    seconds = {
        name: {"median": 0.1 + 0.01 * number, "low": 0.1, "high": 0.4, "confidence": 0.95}
        for number, name in enumerate(scores)
    }
    case = {"model": "teacher", "workload": "dev.csv, batches of 32", "batch": 32, "sentences": 64}
    machine = {"cpu": "A processor", "cores": 2, "threads": 2, "flags": []}
    return {
        "name": "model_trained", "machine": machine, "versions": {"torch": "2"}, "commit": "abc", "date": "2026-01-01",
        "settings": {"models": {"teacher": {"ours": {"packed_layers": 3}}}, "score": "accuracy"},
        "rows": [{"case": case, "seconds": seconds, "scores": scores}],
    }  # fmt: skip


def test_the_figures_labels_do_not_cover_each_other(tmp_path, monkeypatch):
    from matplotlib import pyplot

    names = ["ours", *(f"candidate number {number}" for number in range(15))]
    kept = []
    monkeypatch.setattr(pyplot, "close", kept.append)
    frontier.draw(figure_result(dict.fromkeys(names, 0.9)), tmp_path / "figure.svg")
    [axes] = kept[0].axes
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert len(boxes) == len(names)
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    assert all(name in (tmp_path / "figure.svg").read_text() for name in names)
    pyplot.close("all")


def test_times_above_a_second_are_written_in_full():
    result = figure_result({"ours": 0.9})
    [row] = result["rows"]
    row["seconds"]["ours"] = {"median": 1.7162, "low": 0.9994, "high": 12.3456}
    row["sentences_per_second"] = {"ours": 19.0}
    assert "| ours | 1,716 [999, 12,346] |" in render.render_models(result)


def test_a_figure_is_of_a_sentence_and_in_percent():
    first, *_ = frontier.points(figure_result({"ours": 0.9, "theirs": 0.8}))
    assert first.milliseconds == pytest.approx(100 / 32) and first.score == 90 and first.ours
    with pytest.raises(InputError, match="has no scores"):
        frontier.points({"name": "model", "rows": [{"case": {}}]})


def test_a_page_shows_the_figure_of_a_result_that_has_one(tmp_path, monkeypatch, capsys):
    results, images = tmp_path / "results", tmp_path / "images"
    assert model.main(["--only", DENSE, "--out", str(results), "--smallest"]) == 0
    capsys.readouterr()
    monkeypatch.setattr(frontier, "IMAGES", images)
    page = "<!-- table: model -->\n<!-- end -->"
    assert "![" not in tables.filled(page, results)
    [file] = results.glob("*.json")
    images.mkdir()
    (images / f"{file.stem}.png").touch()
    assert f"](../images/{file.stem}.png)" in tables.filled(page, results)
