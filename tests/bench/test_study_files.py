"""The study files that the results come from."""

from pathlib import Path

import pytest

from bench.common import ROOT
from sparseq.study.study_file import Study

FILES = sorted((ROOT / "bench" / "studies").glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_study_file_is_read_and_says_how_it_is_run(path: Path) -> None:
    study = Study.from_file(path)
    assert path.stem.replace("_", "-") == study.name
    text = path.read_text("utf-8")
    assert f"sparseq study run bench/studies/{path.name} --out runs/" in text


def test_there_are_study_files() -> None:
    assert len(FILES) >= 4
