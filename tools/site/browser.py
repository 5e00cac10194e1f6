"""Looks at a built site in a browser, at the widths of a desktop and of a phone.

python -m tools.site.browser --shots DIR          exits with 1 if something is wrong

Each page must not be wider than its window (wide tables scroll in a box of their own), must ask no other host for
anything, and must leave no error in the browser's console. It needs `pip install playwright` and Chromium.
"""

import argparse
import functools
import http.server
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.program import run_program
from sparseq.errors import InputError
from sparseq.terminal import say

from .check import SITE

WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}
"""Of windows, in CSS pixels."""


@contextmanager
def served(site: Path) -> Iterator[str]:
    """The address of the site, from this machine alone."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None: ...

    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def look(page: Any, address: str, name: str) -> list[str]:
    """What is wrong with one page in a window that is open. page: of playwright."""
    found: list[str] = []

    def asked(request: Any) -> None:
        if not request.url.startswith((address, "data:", "blob:")):
            found.append(f"{name} asks for {request.url}")

    def said(message: Any) -> None:
        # A browser asks for an icon by itself where a page names none.
        if message.type == "error" and not message.location.get("url", "").endswith("/favicon.ico"):
            found.append(f"{name}: {message.text}")

    page.on("request", asked)
    page.on("console", said)
    page.goto(address + name, wait_until="networkidle")
    wide, width = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    if wide > width:
        found.append(f"{name} is {wide} pixels wide in a window of {width}")
    page.remove_listener("request", asked)
    page.remove_listener("console", said)
    return found


def problems(site: Path, executable: str | None, only: Sequence[str], shots: Path | None) -> Iterator[str]:
    """Each thing that is wrong, as one line. shots: folder for a picture of each page."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise InputError("the check in a browser needs playwright: pip install playwright") from None
    names = [path.relative_to(site).as_posix() for path in sorted(site.rglob("*.html"))]
    names = [name for name in names if not only or name in only]
    with served(site) as address, sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        for kind, (width, height) in WIDTHS.items():
            page = browser.new_page(viewport={"width": width, "height": height})
            for name in names:
                yield from (f"{kind}: {line}" for line in look(page, address, name))
                if shots:
                    page.screenshot(path=shots / f"{name.removesuffix('.html').replace('/', '-')}-{kind}.png")
        browser.close()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Looks at a built site in a browser.")
    parser.add_argument("site", nargs="?", type=Path, default=SITE, help="folder of the site (default: site)")
    parser.add_argument("--browser", help="Chromium's program (default: the one on the path, or playwright's)")
    parser.add_argument(
        "--only", action="append", default=[], metavar="PAGE", help="such as index.html (several times)"
    )
    parser.add_argument("--shots", type=Path, metavar="DIR", help="folder for a picture of each page")
    given = parser.parse_args(argv)
    executable = given.browser or shutil.which("chromium") or shutil.which("chromium-browser")
    found = list(problems(given.site.resolve(), executable, given.only, given.shots))
    for line in found:
        say(line, error=True)
    if not found:
        say("every page fits its window, and asks no other host for anything")
    return int(bool(found))


if __name__ == "__main__":
    run_program(main)
