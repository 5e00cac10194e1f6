"""Markdown as the repository's web view and the site both take it: code, links, and the anchors of headings."""

import re
from collections.abc import Callable

FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(([^()\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.*?) *#*$", re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
# Code, in which nothing is a link, or a link, whose text may hold code: whichever begins first.
_PARTS = re.compile(rf"{FENCE.pattern}|^    [^\n]*|(?P<link>{LINK.pattern})|{INLINE.pattern}", re.MULTILINE | re.DOTALL)


def elsewhere(target: str) -> bool:
    """Whether a link leads to another site."""
    return re.match(r"[a-z]+:|//", target) is not None


def slug(heading: str, separator: str = "-") -> str:
    """The anchor that GitHub makes of a heading's text. The signature is that of Python-Markdown's `slugify`."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", separator)


def map_links(text: str, change: Callable[[str], str]) -> str:
    """The text with `change(target)` in the place of every link's and image's target."""

    def changed(part: re.Match[str]) -> str:
        if part["link"] is None:
            return part[0]
        return LINK.sub(lambda m: f"{m[0][: m.start(1) - m.start()]}{change(m[1])})", part[0])

    return _PARTS.sub(changed, text)
