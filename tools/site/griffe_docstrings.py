"""A Griffe extension for mkdocstrings: docstrings and defaults as the repository's reference pages have them.

So a docstring means the same on both. Griffe's own parser of Google's style would take a line such as "rows: how many"
for the title of a box.
"""

import ast
from typing import Any

import griffe

from tools.docstrings import SETTING, constant, default_of, markdown


class Docstrings(griffe.Extension):
    """Has every docstring as Markdown, for `docstring_style: null`, and defaults as values."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)

    def on_attribute_instance(self, *, attr: griffe.Attribute, **kwargs: Any) -> None:
        """As soon as it is read: before Griffe makes a record's `__init__` of its fields."""
        value = attr.value
        if isinstance(value, griffe.ExprCall) and str(value.function) == SETTING:
            attr.value = value.arguments[0]
            name, _, field = str(attr.value).partition(".")
            if field.isidentifier() and name.isidentifier():
                found = default_of(attr.module.path, name, field)
                attr.value = attr.value if found is None else ast.unparse(found)

    def on_function(self, *, func: griffe.Function, **kwargs: Any) -> None:
        for parameter in func.parameters:
            if isinstance(parameter.default, griffe.ExprName):
                try:
                    value = constant(func.module.path, parameter.default.name)
                except ValueError:  # It is no name of the module.
                    continue
                if value is not None:
                    parameter.default = ast.unparse(value)
