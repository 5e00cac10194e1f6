"""The content of a folder, to see whether a call changed it."""

import os
from pathlib import Path
from typing import Any


def tree(folder: Path) -> dict[str, Any]:
    """Every name below a folder, with a file's bytes and a link's target; links are not followed."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }
