"""The report as one HTML page and as Markdown."""

import base64
import re
from collections.abc import Sequence
from importlib import resources

from sparseq.errors import InputError
from sparseq.extras import install
from sparseq.terminal import shown

from .sections import Section
from .table import LONGEST, Table

FIGURES, TABLES = "figures", "tables"
"""The folders of the figures' and the tables' files, beside the page."""

_SPECIAL = re.compile(r"([\\`*_\[\]<>#|!~$&])")


def html(title: str, sections: Sequence[Section]) -> str:
    """The page, with its style and figures inside: it loads nothing. Text of the study is escaped."""
    try:
        import jinja2
    except ImportError as error:
        raise InputError(f"the report's page needs jinja2: {install('study')}") from error
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["plain"] = shown
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode("ascii")
    template = environment.from_string(resources.files(__package__).joinpath("page.html").read_text("utf-8"))
    return template.render(title=shown(title, limit=LONGEST), sections=sections) + "\n"


def markdown(title: str, sections: Sequence[Section]) -> str:
    """The same as Markdown, with links to the figures' files."""
    parts = [f"# {_escaped(title)}"]
    for section in sections:
        parts.append(f"## {section.title}")
        parts += [_escaped(sentence) for sentence in section.sentences]
        parts += [_code(command) for command in section.commands]
        parts += [f"![{_escaped(one.alt)}]({FIGURES}/{one.name}.png)" for one in section.figures]
        for table in section.tables:
            if table.on_page:
                parts += [
                    f"### {_escaped(table.title)}",
                    *([_escaped(table.about)] if table.about else []),
                    _table(table),
                ]
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    headings = [_escaped(column.heading) for column in table.shown_columns]
    rule = ["---" if column.is_text else "---:" for column in table.shown_columns]
    lines = [headings, rule, *([_escaped(text) for text in row] for row in table.texts())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", shown(text))


def _code(text: str) -> str:
    """An indented block: unlike a fence, no text can end it."""
    return f"    {shown(text)}"
