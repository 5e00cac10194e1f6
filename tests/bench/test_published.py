"""Published studies: no path of a machine, and a report that is what its results say."""

import re
from pathlib import Path

import pytest

from bench.studies import published
from sparseq.study.records import Record, StudyResults

MADE = StudyResults(
    "made",
    ("L2",),
    ("sst2",),
    {"sst2": "accuracy"},
    (
        Record(
            "a", ("g",), "sst2", "L2", (), 0, {}, "done", score=0.8, held_out_score=0.8, rows=100, paper_bytes=100,
            stored_bytes=120, recipe={"model": "/home/me/model", "task": "sst2", "epochs": 2.0},
        ),
    ),
    {"data_dir": "/home/me/glue", "epochs": 2.0},
)  # fmt: skip


def test_paths_are_replaced_and_other_settings_stay() -> None:
    found = published.published(MADE)
    assert found.common == {"data_dir": "DATA_DIR", "epochs": 2.0}
    assert found.records[0].recipe == {"model": "MODEL", "task": "sst2", "epochs": 2.0}
    assert "/home" not in found.as_json() and found.conditions["published at commit"]


def test_a_changed_number_makes_the_report_stale(tmp_path: Path) -> None:
    published.write(MADE, tmp_path)
    assert published.stale(MADE, tmp_path) == []
    page = tmp_path / "report.md"
    page.write_text(re.sub(r"80\.00", "81.00", page.read_text("utf-8")), "utf-8")
    assert published.stale(MADE, tmp_path) == ["report.md"]
    (tmp_path / "tables" / "extra.csv").write_text("")
    assert published.stale(MADE, tmp_path) == ["report.md", "tables/extra.csv"]
    published.write(MADE, tmp_path)
    assert published.stale(MADE, tmp_path) == []


@pytest.mark.parametrize("file", sorted(published.STUDIES.glob("*.json")), ids=lambda file: file.stem)
def test_published_results_have_no_path(file: Path) -> None:
    text = file.read_text("utf-8")
    assert not re.search(r'"(/|~|[A-Z]:\\\\)', text)
    assert StudyResults.from_file(file).name == file.stem
