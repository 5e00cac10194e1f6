"""The transformers class that a file names."""

from __future__ import annotations

from typing import Any

from sparseq.errors import InputError

__all__ = ["config_class", "model_class"]


def model_class(architecture: str | None) -> Any:
    """The transformers model class with exactly this name. Raises InputError if there is none."""
    import transformers

    kind: Any = getattr(transformers, architecture or "", None)
    of_a_model = isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
    named_so = of_a_model and kind.__name__ == architecture and kind.__module__.startswith("transformers.models.")
    if not named_so or not getattr(kind.config_class, "model_type", ""):
        raise InputError(
            f"transformers {transformers.__version__} has no {architecture}; pass load() the model to fill"
        )
    return kind


def config_class(architecture: str | None) -> Any:
    """The class of the named model's config; None if there is no such model or no transformers."""
    try:
        return model_class(architecture).config_class
    except (ImportError, InputError):
        return None
