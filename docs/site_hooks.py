"""What the site has besides the pages of `docs`: those of the repository's root, and a place for pages without one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

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
    """Add the root's pages; they aren't copied into `docs`."""
    root = Path(config.docs_dir).parent
    for name in ROOT_PAGES:
        files.append(File.generated(config, name, content=(root / name).read_text()))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Point links of `docs` to the root's pages, theirs to `docs`, and part lists as Python's Markdown wants it."""
    for name in ROOT_PAGES:
        markdown = markdown.replace(f"](../{name}", f"]({name}")
    markdown = markdown.replace("](docs/", "](")
    return _with_blank_lines(markdown)


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
