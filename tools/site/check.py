"""Checks a built site: every internal link and anchor leads somewhere, and no page loads anything from elsewhere.

python -m tools.site.check          exits with 1 if something is wrong
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bench.common import ROOT
from bench.program import run_program
from sparseq.errors import InputError
from sparseq.terminal import say

SITE = ROOT / "site"
# A browser follows these only when it is told to, or never.
_FOLLOWED = {("a", "href"), ("area", "href"), ("form", "action")}
_NOT_LOADED = {"canonical", "prev", "next", "alternate"}
_ADDRESSES = ("href", "src", "action", "data", "poster")
_IN_CSS = re.compile(r"url\(\s*[\"']?([^\"')]+)|@import\s+[\"']([^\"']+)")


@dataclass
class Page(HTMLParser):
    """What a page of HTML refers to. followed: links. loaded: what a browser fetches to show it. ids: its anchors."""

    followed: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value for name, value in attrs if value is not None}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        if tag == "link" and values.get("rel") in _NOT_LOADED:
            return
        for name in _ADDRESSES:
            if name in values:
                (self.followed if (tag, name) in _FOLLOWED else self.loaded).append(values[name])
        self.loaded += [part.split()[0] for part in values.get("srcset", "").split(",") if part.strip()]
        self.loaded += in_css(values.get("style", ""))


def in_css(text: str) -> list[str]:
    """The addresses in a style sheet."""
    return [one or other for one, other in _IN_CSS.findall(text)]


def problems(site: Path) -> Iterator[str]:
    """Each thing that is wrong, as one line. Raises InputError if there is no site."""
    if not (site / "index.html").is_file():
        raise InputError(f"{site} has no index.html: build the site first, with `make docs`")
    pages: dict[Path, Page] = {}
    for path in sorted(site.rglob("*.html")):
        pages[path] = Page()
        pages[path].feed(path.read_text(encoding="utf-8"))
    for path, page in pages.items():
        name = path.relative_to(site)
        yield from (f"{name} loads {address} from elsewhere" for address in page.loaded if _elsewhere(address))
        for address in dict.fromkeys([*page.followed, *page.loaded]):
            if not _elsewhere(address) and (wrong := _dead(site, path, address, pages)):
                yield f"{name}: {wrong}"
    for path in sorted(site.rglob("*.css")):
        for address in in_css(path.read_text(encoding="utf-8")):
            if _elsewhere(address):
                yield f"{path.relative_to(site)} loads {address} from elsewhere"


def _elsewhere(address: str) -> bool:
    """Whether it is of another host. What a page carries within itself is not."""
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme not in ("", "data")


def _dead(site: Path, path: Path, address: str, pages: dict[Path, Page]) -> str | None:
    """What is wrong with an address within the site."""
    parts = urlsplit(address)
    if parts.scheme == "data":
        return None
    start = site if parts.path.startswith("/") else path.parent
    there = (start / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
    if there.is_dir():
        there /= "index.html"
    if not there.is_file():
        return f"{address} leads nowhere"
    known = pages.get(there)
    if known and parts.fragment and unquote(parts.fragment) not in known.ids:
        return f"{address} has no such anchor"
    return None


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Checks the links of a built site, and that it loads nothing.")
    parser.add_argument("site", nargs="?", type=Path, default=SITE, help="folder of the site (default: site)")
    given = parser.parse_args(argv)
    found = list(problems(given.site.resolve()))
    for line in found:
        say(line, error=True)
    if not found:
        say(f"{given.site}: links lead somewhere, and nothing is loaded from elsewhere")
    return int(bool(found))


if __name__ == "__main__":
    run_program(main)
