"""The notebooks of the docs: their cells run, and what is stored of a run is small and of no machine's folders."""

import json
import re
from pathlib import Path

import pytest
from pages import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def test_there_are_two() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["compress-a-classifier", "one-layer"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_stored_is_one_whole_run(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for output in (output for cell in cells for output in cell["outputs"]):
        assert output["output_type"] == "stream" and output["name"] == "stdout"
        text = "".join(output["text"])
        assert len(text) < 2000 and not re.search(r"(^|\s)/\w+/", text)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_cells_run(path: Path) -> None:
    pytest.importorskip("nbclient", reason="running notebooks needs the extra docs")
    from tools.site.notebooks import executed

    executed(path)


@pytest.mark.slow
def test_a_cell_that_fails_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("nbclient", reason="running notebooks needs the extra docs")
    from tools.site import notebooks

    made = json.loads(NOTEBOOKS[0].read_text(encoding="utf-8"))
    made["cells"] = [{**made["cells"][1], "source": "assert 1 == 2", "outputs": []}]
    path = tmp_path / "made.ipynb"
    path.write_text(json.dumps(made), encoding="utf-8")
    before = path.read_bytes()
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path)
    assert notebooks.main([]) == 1 and path.read_bytes() == before
    assert "assert 1 == 2" in capsys.readouterr().err
