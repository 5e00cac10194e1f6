"""Former names, which stay for one release and say what to use instead."""

import pytest

from sparseq import assets
from sparseq.augment import finding, wordnet_dir
from sparseq.demo import data


def test_assets_are_of_the_demo_and_of_the_augmentation() -> None:
    with pytest.warns(DeprecationWarning, match=r"sparseq\.assets\.wordnet_dir is now sparseq\.augment\.wordnet_dir"):
        assert assets.wordnet_dir is wordnet_dir
    for name in ("MINILM", "MOVIE_SNIPPETS", "minilm_path", "movie_snippets", "write_movie_task"):
        with pytest.warns(DeprecationWarning, match=rf"sparseq\.demo\.data\.{name}"):
            assert getattr(assets, name) is getattr(data, name)
    for name in ("WORDNET", "wordnet_folder"):
        with pytest.warns(DeprecationWarning, match=name):
            assert getattr(assets, name) is getattr(finding, name)
    with pytest.raises(AttributeError, match="nothing"):
        _ = assets.nothing
