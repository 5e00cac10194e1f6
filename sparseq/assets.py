"""Former names of `sparseq.demo.data` and `sparseq.augment`, to be removed in the next release."""

import warnings
from importlib import import_module
from typing import Any

_HOMES = {
    "MINILM": "sparseq.demo.data",
    "MOVIE_SNIPPETS": "sparseq.demo.data",
    "WORDNET": "sparseq.augment.finding",
    "minilm_path": "sparseq.demo.data",
    "movie_snippets": "sparseq.demo.data",
    "wordnet_dir": "sparseq.augment",
    "wordnet_folder": "sparseq.augment.finding",
    "write_movie_task": "sparseq.demo.data",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOMES[name]
    warnings.warn(f"sparseq.assets.{name} is now {home}.{name}", DeprecationWarning, stacklevel=2)
    return getattr(import_module(home), name)
