"""Registers sparseq with transformers, whichever of the two is imported first, without importing the other."""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType

from sparseq_kernels.on_import import after_import

__all__ = ["register_with_transformers"]

# The module that holds transformers' registry of quantizers. transformers imports it with the first model, not before.
REGISTRY = "transformers.quantizers.auto"


def register_with_transformers() -> None:
    """Imports `sparseq.hf`, which registers its quantizer with transformers.

    This happens now if transformers has imported its registry, otherwise as soon as it does.
    """
    after_import(REGISTRY, _register)


def _register(registry: ModuleType) -> None:
    # An error here must not stop the import of transformers, which refuses the folders if there is no quantizer.
    try:
        importlib.import_module("sparseq.hf")
    except (ImportError, AttributeError) as error:
        warnings.warn(
            f"sparseq cannot register with this transformers ({error}): load its folders by sparseq.load", stacklevel=2
        )
