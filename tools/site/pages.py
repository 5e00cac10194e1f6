"""The pages of the site, made of the repository's files: their place on it, and links that lead there.

A page's Markdown is the repository's own, with other links. Pages of public names are the exception: tools/reference.py
lists their names, and mkdocstrings renders them. Files outside docs that a page links to become pages, too.
"""

import ast
import posixpath

import nbformat
from nbconvert import MarkdownExporter

from tools import reference
from tools.docstrings import ROOT, Definition

from .markdown import elsewhere, map_links, slug

# Files of the repository whose place on the site is not that below docs.
PLACES = {
    "README.md": "index.md",
    "docs/README.md": "overview.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "bench/README.md": "benchmarks.md",
}
DOCS, NOTEBOOK, SOURCE = "docs/", ".ipynb", "source/"
_NOT_SEARCHED = "---\nsearch:\n  exclude: true\n---\n\n"
_LANGUAGES = {"py": "python", "toml": "toml", "json": "json", "txt": "text"}


def place(source: str) -> str:
    """Where a file of the repository is on the site; both are paths from the root."""
    if source in PLACES:
        return PLACES[source]
    if source.startswith(DOCS):
        return source.removeprefix(DOCS).replace(NOTEBOOK, ".md")
    return f"{SOURCE}{source}.md"


def pages() -> dict[str, str]:
    """Every page by its place, as Markdown. Raises ValueError for a link to what is not there."""
    linked: set[str] = set()
    docs = (path.relative_to(ROOT).as_posix() for path in sorted((ROOT / DOCS).rglob("*")))
    sources = dict.fromkeys([*PLACES, *(path for path in docs if path.endswith((".md", NOTEBOOK)))])
    found = {place(source): _moved(_text(source), source, linked) for source in sources}
    found |= {place(source): _as_code(source) for source in sorted(linked - sources.keys())}
    return found | {f"reference/{name}.md": _public_names(name) for name in reference.PAGES}


def _text(source: str) -> str:
    path = ROOT / source
    if source.endswith(NOTEBOOK):
        text, _ = MarkdownExporter().from_notebook_node(nbformat.read(path, as_version=4))
        return f"{text}\n[The notebook as a file]({path.name})\n"
    text = path.read_text(encoding="utf-8")
    # Reports of studies are long tables; a search would find little else.
    return _NOT_SEARCHED + text if path.name in ("report.md", "CHANGELOG.md") else text


def _moved(text: str, source: str, linked: set[str]) -> str:
    """The text with links from the page's place on the site. linked: gets the files outside docs that it links to."""
    here = posixpath.dirname(place(source))

    def change(target: str) -> str:
        path, sign, anchor = target.partition("#")
        if elsewhere(target) or not path:
            return target
        there = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if not (ROOT / there).is_file():
            raise ValueError(f"{source} links to {target}, and there is no file {there}")
        if there == source:  # a notebook's link to its file
            return target
        if there.startswith(DOCS) and not there.endswith((".md", NOTEBOOK)):
            return posixpath.relpath(there.removeprefix(DOCS), here or ".")
        if not there.startswith(DOCS):
            linked.add(there)
        return posixpath.relpath(place(there), here or ".") + sign + anchor

    return map_links(text, change)


def _as_code(source: str) -> str:
    """A file that is no Markdown as a page."""
    language = _LANGUAGES.get(source.rpartition(".")[2], "text")
    text = (ROOT / source).read_text(encoding="utf-8")
    return f"{_NOT_SEARCHED}# `{source}`\n\n````{language}\n{text}````\n"


def _public_names(name: str) -> str:
    source = f"{DOCS}reference/{name}.md"
    return _moved(reference.page(name, _by_mkdocstrings), source, set())


def _by_mkdocstrings(package: str, definition: Definition) -> str:
    """A function or class for mkdocstrings, below the anchor that the repository's page has. Constants stay as they are
    there: mkdocstrings has no text for several that are one statement, or for one that a comment explains."""
    if not isinstance(definition.node, ast.FunctionDef | ast.ClassDef):
        return reference.in_full(package, definition)
    return f'<a id="{slug(definition.name)}"></a>\n\n::: {package}.{definition.name}\n'
