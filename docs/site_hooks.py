"""What the site has besides the pages of `docs`: those of the root, notebooks, a place for new pages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT_PAGES = ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
MORE = "More"  # section of the pages of `docs` that mkdocs.yml doesn't name
ITEM = re.compile(r"([*+-]|\d+\.) ")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add pages of `docs` that the navigation doesn't name, so that a new page is reached without an edit here."""
    named = set(_leaves(config.nav))
    missing = [page.name for page in sorted(Path(config.docs_dir).glob("*.md")) if page.name not in named]
    if missing and config.nav is not None:
        config.nav.append({MORE: missing})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the root's pages, which aren't copied into `docs`, and a page for every notebook."""
    root = Path(config.docs_dir).parent
    for notebook in sorted(Path(config.docs_dir).glob("notebooks/*.ipynb")):
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=_as_page(notebook)))
    for name in ROOT_PAGES:
        files.append(File.generated(config, name, content=(root / name).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Point links of `docs` to the root's pages, theirs to `docs`, and part lists as Python's Markdown wants it."""
    if not page.file.src_uri.startswith("notebooks/"):
        markdown = markdown.replace(".ipynb)", ".md)")
    for name in ROOT_PAGES:
        markdown = markdown.replace(f"](../{name}", f"]({name}")
    markdown = markdown.replace("](docs/", "](")
    return _with_blank_lines(markdown)


def _as_page(notebook: Path) -> str:
    """A notebook's texts and code, with a link to the file; outputs aren't stored."""
    title, *cells = json.loads(notebook.read_text())["cells"]
    texts = ["".join(title["source"]), f"[The notebook]({notebook.name}) to download and run."]
    for cell in cells:
        text = "".join(cell["source"])
        texts.append(f"```python\n{text}\n```" if cell["cell_type"] == "code" else text)
    return "\n\n".join(texts) + "\n"


def _leaves(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    items = nav.values() if isinstance(nav, dict) else nav or ()
    return [leaf for item in items for leaf in _leaves(item)]


def _with_blank_lines(markdown: str) -> str:
    """The text with a blank line before each list: code hosts begin a list right after a paragraph."""
    lines: list[str] = []
    fenced = False
    for line in markdown.splitlines():
        fenced ^= line.lstrip().startswith("```")
        before = lines[-1] if lines else ""
        if not fenced and ITEM.match(line) and before.strip() and not ITEM.match(before) and before[0] not in " |":
            lines.append("")
        lines.append(line)
    return "\n".join(lines) + "\n"
