"""The Markdown files of the repository: their headings, links, code and tables."""

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from tools.site.markdown import FENCE, HEADING, INLINE, LINK, elsewhere, slug

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(path for folder in ("docs", "bench", "kernels", "tools") for path in (ROOT / folder).rglob("*.md")),
    ]
)


class Block(NamedTuple):
    """A fenced block of code. line: of the page, from 1."""

    language: str
    code: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        indent, language, code = match.groups()
        lines = [line.removeprefix(indent) for line in code.splitlines(keepends=True)]
        found.append(Block(language, "".join(lines), text[: match.start()].count("\n") + 1))
    return found


def example_files(page: Path = ROOT / "CONTRIBUTING.md") -> list[tuple[str, str, str]]:
    """(what to do, path, code) of each block below a mark: `<!-- file: a/b.py -->` or `<!-- append: a/b.py -->`."""
    text = page.read_text(encoding="utf-8")
    marked = re.compile(r"<!-- (file|append): (\S+) -->\n+```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [(match[1], match[2], match[3]) for match in marked.finditer(text)]


def load_example(path: str) -> ModuleType:
    """A file of CONTRIBUTING.md as the module that it would be there, without writing it."""
    [code] = [code for kind, found, code in example_files() if (kind, found) == ("file", path)]
    name = path.removeprefix("kernels/").removesuffix(".py").replace("/", ".")
    module = ModuleType(name)
    module.__package__ = name.rpartition(".")[0]
    sys.modules[name] = module
    exec(compile(code, path, "exec"), vars(module))
    return module


def prose(page: Path) -> str:
    """The page without its blocks of code, fenced or indented, and without generated tables of results."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    text = re.sub(r"<!-- table: .*?<!-- end -->", "", text, flags=re.DOTALL)
    return re.sub(r"^    .*$", "", text, flags=re.MULTILINE)


def links(page: Path) -> list[str]:
    """Targets of the page's links and images, but for those that are elsewhere."""
    text = INLINE.sub("", prose(page))
    return [found for found in LINK.findall(text) if not elsewhere(found)]


def anchors(page: Path) -> set[str]:
    """The page's anchors, as GitHub makes them of its headings."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    found: dict[str, int] = {}
    result = set(re.findall(r'<a (?:id|name)="([^"]+)"', text))
    for heading in HEADING.findall(text):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = slug(plain)
        count = found.setdefault(anchor, 0)
        found[anchor] += 1
        result.add(f"{anchor}-{count}" if count else anchor)
    return result


def inline_code(page: Path) -> list[str]:
    return INLINE.findall(prose(page))


def places(text: str) -> list[tuple[str, str]]:
    """(file, name) of each "file: name, name" in inline code, in their order."""
    found = []
    for code in INLINE.findall(text):
        if match := re.fullmatch(r"([\w./]+\.(?:py|c)): (\w+(?:, \w+)*)", code):
            found += [(match[1], name) for name in match[2].split(", ")]
    return found


def source(name: str) -> Path | None:
    """The file that a page calls by this path: from the root of the repository, or from that of a package."""
    for start in (".", "kernels", "kernels/sparseq_kernels", "sparseq", "bench", "tools", "tests"):
        if (ROOT / start / name).exists():
            return ROOT / start / name
    return None
