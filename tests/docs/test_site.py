"""The site of the documentation: built with warnings as errors, looked at in headless Chromium, without a network."""

import re
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.browser import browser, chromium

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The site, served on this machine: its search needs HTTP."""
    pytest.importorskip("mkdocs", reason="the docs extra installs mkdocs")
    chromium()
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    patch = pytest.MonkeyPatch()
    patch.chdir(ROOT)
    patch.setenv("NO_MKDOCS_2_WARNING", "1")
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True))
    patch.undo()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


def wait_for(page, expression):
    """The script's value, once it is truthy."""
    deadline = time.monotonic() + 60
    while not (value := page.script(expression)):
        assert time.monotonic() < deadline, expression
        time.sleep(0.1)
    return value


@pytest.mark.parametrize(
    "name", ["index", "losses", "models", "api/losses", "api/tasks", "results/index", "notebooks/demo", "CHANGELOG"]
)
def test_a_page_fetches_nothing_and_fits(page, address, name):
    page.window(1440)
    page.open(f"{address}/{name}.html")
    assert [url for url in page.requests if not url.startswith((address, "blob:"))] == []
    assert page.complaints == []
    assert page.script("[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt)")
    for width in (1440, 390):
        page.window(width)
        assert page.script("document.documentElement.scrollWidth") == width


def test_the_reference_has_the_losses(page, address):
    page.open(f"{address}/api/losses.html")
    for name in ("base.NumberLoss", "ntil.NTIL", "value_emd.ValueEMD", "boxes.ExpectedIoU", "baselines.SMMD"):
        assert page.script(f"document.getElementById('ntil.losses.{name}').textContent.trim().length > 0"), name
    assert "reduction" in page.script("document.querySelector('article').textContent")


def test_the_search_finds_a_loss(page, address):
    page.window(1440)
    page.open(f"{address}/index.html?q=box_iou")
    titles = wait_for(page, "[...document.querySelectorAll('.md-search-result__item')].map(e => e.textContent).join()")
    assert "losses" in titles.lower()


def test_the_site_follows_the_dark_mode(page, address):
    page.open(f"{address}/index.html")
    page.script("localStorage.clear()")
    page.colour_scheme("dark")
    page.open(f"{address}/index.html")
    assert page.script("document.body.getAttribute('data-md-color-scheme')") == "slate"
    page.colour_scheme("light")


def test_each_page_is_in_the_contents(page, address):
    page.window(1440)
    page.open(f"{address}/losses.html")
    links = page.script("[...document.querySelectorAll('.md-nav--primary a')].map(a => a.pathname.slice(1))")
    pages = {f"{file.stem}.html" for file in (ROOT / "docs").glob("*.md")}
    assert pages | {"ARCHITECTURE.html", "CONTRIBUTING.html", "CHANGELOG.html"} <= set(links)


def test_lists_after_a_paragraph_are_lists(page, address):
    page.open(f"{address}/CHANGELOG.html")
    bullets = re.findall(r"^\* ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert page.script("document.querySelectorAll('article li').length") == len(bullets)
