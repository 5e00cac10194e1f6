"""Where this library keeps what it made or fetched: $SPARSEQ_CACHE, otherwise ~/.cache/sparseq."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """The cache folder; not created here."""
    named = os.environ.get("SPARSEQ_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "sparseq"
