"""Where the rows of a recipe are, as arguments of `load_data`."""

from typing import Any

from .recipe import Recipe


def validation_source(recipe: Recipe) -> dict[str, Any]:
    """The arguments for the rows that a run is scored on, whatever they are read from."""
    return {
        "data_dir": recipe.data_dir,
        "validation_file": recipe.validation_file,
        "dataset": recipe.dataset,
        "validation_split": recipe.validation_split,
        "text_columns": recipe.text_columns or None,
        "label_column": recipe.label_column,
        "max_validation_rows": recipe.max_validation_rows,
    }
