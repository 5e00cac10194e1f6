"""Masks on weights that FSDP2 (`fully_shard`) has sharded: the same as without, bit for bit."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sharded import CASES
from two_ranks import TwoRanks


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoRanks]:
    found = TwoRanks(tmp_path_factory.mktemp("ranks"))
    yield found
    found.close()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_pruning_of_sharded_weights(case: str, two_ranks: TwoRanks) -> None:
    path = str(Path(__file__).parent)
    for ended in two_ranks.run(f"import sys; sys.path.insert(0, {path!r}); import sharded; sharded.main({case!r})"):
        assert ended.returncode == 0, ended.stderr
