"""A small WordNet in the true text format, and the real one where there is one."""

from pathlib import Path

import pytest
from small_wndb import MEANINGS, write_wndb

from sparseq.augment import WordNet, find_wordnet
from sparseq.errors import InputError


@pytest.fixture(scope="session")
def wndb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wndb(tmp_path_factory.mktemp("wndb"), MEANINGS)


@pytest.fixture(scope="session")
def small(wndb: Path) -> WordNet:
    return WordNet(wndb)


@pytest.fixture(scope="session")
def real() -> WordNet:
    try:
        found = find_wordnet()
    except InputError as error:
        pytest.skip(str(error))
    if found is None:
        pytest.skip("no WordNet on this machine; sparseq.augment.wordnet_dir() fetches it")
    return WordNet(found)
