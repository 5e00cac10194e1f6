"""MkDocs's hooks: the site's pages are those of `tools.site.pages`."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from tools.site.pages import pages

STYLE = "assets/site.css"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Has the pages in the place of the Markdown files of docs; figures and other files stay."""
    for file in list(files.documentation_pages()):
        files.remove(file)
    for uri, text in pages().items():
        files.append(File.generated(config, uri, content=text))
    files.append(File.generated(config, STYLE, abs_src_path=str(Path(__file__).with_name("site.css"))))
    config.extra_css.append(STYLE)
    return files
