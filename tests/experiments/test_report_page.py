"""The report page in headless Chromium: sorting, gallery, width, dark mode, 50 cells, keyboard, screen reader."""

import re
from dataclasses import replace
from itertools import pairwise

import pytest

from experiments.analysis import analyse
from experiments.render import html
from experiments.render.tables import overview
from ntil.console import Table
from ntil.runs.run import read_runs
from tests.support.browser import browser

CELLS = 50
WIDE, NARROW = 1920, 390  # CSS pixels of the window

# The contrast of text with what lies behind it, as the Web Content Accessibility Guidelines (2.2, 1.4.3) define it.
CONTRAST = """
(() => {
  const channels = colour => colour.match(/[0-9.]+/g).map(Number);
  const light = c => { const v = c / 255; return v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; };
  const luminance = ([r, g, b]) => .2126 * light(r) + .7152 * light(g) + .0722 * light(b);
  const behind = e => { const c = channels(getComputedStyle(e).backgroundColor);
                        return c.length < 4 || c[3] > 0 ? c : behind(e.parentElement); };
  const names = ["body", ".soft", "nav a", "td.better", "td.worse", "td.missing", "thead th", "figcaption",
                 ".words li"];
  return Object.fromEntries(names.map(name => {
    const e = document.querySelector(name);
    const [a, b] = [luminance(channels(getComputedStyle(e).color)), luminance(behind(e))];
    return [name, (Math.max(a, b) + .05) / (Math.min(a, b) + .05)];
  }));
})()"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(runs, tmp_path_factory):
    """A page of 50 cells: one real one, and 49 more of its content."""
    (report,) = reports = analyse(read_runs(runs), {}, draws=50)
    part = html.cell_part(report, 6)
    part["examples"][0]["scores"]["ntil"] = None
    names = [f"clock_{i}" for i in range(CELLS)]
    parts = [part | {"title": f"{name}, llava_nano", "task": name} for name in names]
    first = overview(reports)
    assert first
    rows = [[name, *row[1:]] for name in names for row in first.rows]
    rows[0][-1], rows[1][-1], rows[2][-1] = "missing", "-", "0.1 ± 0.2 ✗"
    # A table that a narrow window can't show, with a verdict of each kind.
    wide = Table("wide", [f"c{i}" for i in range(40)], ["l", *"r" * 39], [["x", "better", "worse", *["0.123456"] * 37]])
    parts[5:] = [one | {"examples": one["examples"][:2]} for one in parts[5:]]
    parts[1] = parts[1] | {"tables": [*part["tables"], wide]}
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(html.page("clock", "6 runs", parts, None, ["6 of 6 runs"], replace(first, rows=rows)))
    return file.as_uri()


@pytest.fixture(scope="module")
def chromium_page(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture
def page(chromium_page, address):
    chromium_page.window(WIDE)
    chromium_page.colour_scheme("light")
    chromium_page.open(address)
    return chromium_page


def column(page, index):
    """Text of a column of the first table."""
    return page.script(f"[...document.querySelector('tbody').rows].map(row => row.cells[{index}].textContent)")


def sorting(page):
    return page.script("[...document.querySelector('thead').rows[0].cells].map(c => c.getAttribute('aria-sort'))")


def test_nothing_is_fetched_and_nothing_fails(page, address):
    assert page.requests == [address]
    assert page.complaints == []
    assert page.script("document.querySelectorAll('section.cell').length") == CELLS
    assert page.script("[...document.images].every(i => i.complete && i.naturalWidth > 0)")


@pytest.mark.parametrize("width", [WIDE, 1280, 800, NARROW])
def test_a_window_of_any_width_scrolls_down_only(page, width):
    page.window(width)
    assert page.script("document.documentElement.scrollWidth") == width


def test_the_width_is_used(page):
    line_ups = "[...new Set([...document.querySelector('.gallery').children].map(e => e.offsetTop))].length"
    side_by_side = """(([a, b]) => Math.abs(a.getBoundingClientRect().bottom - b.getBoundingClientRect().bottom) < 2)(
        document.querySelector('section.cell .tables').children)"""
    assert page.script("document.querySelector('main').getBoundingClientRect().right") > WIDE - 40
    assert page.script("document.querySelector('nav').getBoundingClientRect().right") < 320
    assert page.script(line_ups) == 2
    assert page.script(side_by_side)
    page.window(NARROW)
    assert page.script(line_ups) == 6
    assert not page.script(side_by_side)
    assert page.script("document.querySelector('nav').offsetHeight") < 500


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_in_dark(page, scheme):
    page.colour_scheme(scheme)
    contrasts = page.script(CONTRAST)
    assert min(contrasts.values()) >= 4.5, contrasts
    channels = re.findall("[0-9]+", page.script("getComputedStyle(document.body).backgroundColor"))
    assert (sum(map(int, channels)) < 150) == (scheme == "dark")


def test_a_table_is_sorted_from_the_keyboard(page):
    before = column(page, 4)
    page.script("document.querySelector('thead th:nth-child(4) button').focus()")
    page.press("Tab")
    assert page.script("document.activeElement.textContent") == "ntil"
    assert page.script("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.press("Enter")
    assert sorting(page) == ["none"] * 4 + ["ascending"]
    rising = column(page, 4)
    assert sorted(rising) == sorted(before)
    assert rising[0] == "0.1 ± 0.2 ✗"
    assert rising[-2:] == ["missing", "-"]
    values = [float(text.split()[0]) for text in rising[:-2]]
    assert values == sorted(values)
    page.press(" ")
    assert sorting(page)[4] == "descending"
    falling = column(page, 4)
    assert falling[-2:] == ["missing", "-"]
    assert [float(text.split()[0]) for text in falling[:-2]] == values[::-1]
    page.press("Enter")
    assert sorting(page) == ["none"] * 5
    assert column(page, 4) == before
    # Names go by their numbers: clock_10 after clock_9.
    page.script("document.querySelector('thead button').click()")
    assert column(page, 0)[::2] == [f"clock_{i}" for i in range(CELLS)]


def test_the_examples_that_differ_most_come_first(page):
    gaps = """[...document.querySelector('.gallery').children].map(e => {
        const s = JSON.parse(e.dataset.scores); return s.ntil === null ? null : Math.abs(s.ce - s.ntil); })"""
    order = page.script(gaps)
    assert order[-1] is None  # a score that is no number
    assert order[:-1] == sorted(order[:-1], reverse=True)
    assert order[0] > order[-2]
    page.script("document.querySelector('[data-side=b]').focus()")
    page.script(
        """(() => { const b = document.querySelector('[data-side=b]'); b.value = 'ce';
        b.dispatchEvent(new Event('change', {bubbles: true})); })()"""
    )
    assert page.script("document.querySelector('.gallery').children.length") == 6


def test_a_screen_reader_is_given_names(page):
    spoken = page.spoken()
    nameless = [role for role, name in spoken if role in ("image", "button", "link", "table", "combobox", "searchbox")
                and not name.strip()]  # fmt: skip
    assert nameless == []
    roles = [role for role, _ in spoken]
    assert {"banner", "navigation", "main", "columnheader", "rowheader"} <= set(roles)
    assert ("combobox", "first loss") in spoken
    assert any(role == "image" and "with the answer of ntil: " in name for role, name in spoken)
    assert any(role == "image" and name.startswith("Learning curves") and "ce, ntil" in name for role, name in spoken)
    assert page.script("[...document.querySelectorAll('th')].every(h => h.scope === 'col' || h.scope === 'row')")
    levels = page.script("[...document.querySelectorAll('h1, h2, h3')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert page.script("document.documentElement.lang") == "en"


def test_the_first_key_skips_the_contents(page):
    page.press("Tab")
    assert page.script("document.activeElement.textContent") == "skip to the results"
    assert page.script("document.activeElement.getBoundingClientRect().left") > 0
    page.press("Enter")
    assert page.script("document.activeElement.id") == "main"


def test_only_what_can_be_scrolled_gets_the_focus(page):
    count = "document.querySelectorAll('.scroll[tabindex]').length"
    settled = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))"
    page.script(settled)
    assert page.script(count) == 2  # the overview of 100 rows, and the table of 40 columns
    assert page.script("document.querySelectorAll('.scroll[tabindex]')[1].getAttribute('aria-label')") == "wide"
    page.window(NARROW)
    page.script(settled)
    assert page.script(count) > 100


def test_fifty_cells_are_filtered_and_reached(page):
    page.script(
        """(() => { const box = document.getElementById('filter'); box.value = 'CLOCK_4';
        box.dispatchEvent(new Event('input', {bubbles: true})); })()"""
    )
    shown = page.script(
        "[...document.querySelectorAll('#contents .cell')].filter(e => e.offsetHeight).map(e => e.textContent)"
    )
    assert shown == [f"clock_{i}, llava_nano" for i in (4, *range(40, 50))]
    page.script("document.querySelector('tbody tr:nth-child(83) a').click()")
    top = "document.getElementById('cell42').getBoundingClientRect().top"
    assert page.script("document.getElementById('cell42').textContent") == "clock_41, llava_nano"
    assert 0 <= page.script(top) < 40
    # The contents stay in the window.
    assert 0 <= page.script("document.querySelector('nav').getBoundingClientRect().top") < 40
