"""Where this library keeps what it made or fetched: $SPARSEQ_CACHE, otherwise ~/.cache/sparseq, or without a home the
system's temporary folder."""

import os
import tempfile
from pathlib import Path


def cache_dir() -> Path:
    """The cache folder; not created here."""
    named = os.environ.get("SPARSEQ_CACHE")
    try:
        return Path(named).expanduser() if named else Path.home() / ".cache" / "sparseq"
    except RuntimeError:  # The user has no home.
        return Path(tempfile.gettempdir()) / "sparseq"
