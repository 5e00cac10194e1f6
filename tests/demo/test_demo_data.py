"""What the demo trains on and starts from."""

import csv
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sparseq.augment.finding import WORDNET
from sparseq.demo import data
from sparseq.errors import InputError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARSEQ_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def snippets(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, str]]:
    rows = [((-1) ** i * (0.3 + i / 10), f'Snippet {i}, "quoted"') for i in range(20)] + [(2.2, 'Snippet 18, "quoted"')]
    monkeypatch.setattr(data, "movie_snippets", lambda: rows)
    return rows


def test_movie_task(snippets: list[tuple[float, str]], tmp_path: Path) -> None:
    train, validation = data.write_movie_task(tmp_path / "task", heldout=5, seed=1)
    assert (train, validation) == (tmp_path / "task" / "train.csv", tmp_path / "task" / "validation.csv")
    tables = [list(csv.reader(path.open(newline="", encoding="utf-8"))) for path in (train, validation)]
    assert tables[0][0] == tables[1][0] == ["sentence", "label"]
    rows = [tuple(row) for table in tables for row in table[1:]]
    assert len(tables[1]) - 1 == 5 and len(rows) == len(set(rows)) == 18  # two are too near 0, one comes twice
    assert set(rows) == {(text, str(int(rating > 0))) for rating, text in snippets if abs(rating) >= 0.5}
    assert sorted(os.listdir(tmp_path / "task")) == ["train.csv", "validation.csv"]
    before = train.read_bytes()
    data.write_movie_task(tmp_path / "task", heldout=5, seed=1)
    assert train.read_bytes() == before
    data.write_movie_task(tmp_path / "task", heldout=5, seed=2)
    assert train.read_bytes() != before


@pytest.mark.parametrize("heldout", [0, 18, -1])
def test_movie_task_heldout_out_of_range(snippets: list[tuple[float, str]], tmp_path: Path, heldout: int) -> None:
    with pytest.raises(InputError, match="heldout must be from 1 to 17"):
        data.write_movie_task(tmp_path, heldout=heldout)
    assert not (tmp_path / "train.csv").exists()


@pytest.mark.slow
def test_really_fetches_once(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    try:
        rows = data.movie_snippets()
    except InputError as error:
        pytest.skip(str(error))
    assert len(rows) == 10_605 and min(r for r, _ in rows) >= -4 and max(r for r, _ in rows) <= 4
    assert rows[2][1] == "Effective but too tepid biopic" and rows[2][0] == -0.6
    assert "2.5 MB" in capfd.readouterr().err
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert data.movie_snippets() == rows
    assert capfd.readouterr().err == ""


def test_pins_are_full() -> None:
    for download in (WORDNET, data.MOVIE_SNIPPETS, data.MINILM):
        assert len(download.sha256) == len(download.tree_sha256) == 64
        assert replace(download, keep=("x/",)).keeps("x/y") and not download.keeps("setup.py")
