"""Every page of the navigation, light and dark, wide and on a telephone: readable for all, nothing sticks out, and a picture of it.

The pictures lie in CERTSCOPE_ARTIFACTS (default: var/artifacts) afterwards.
"""

import os
import re
from itertools import pairwise
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from backend.home import CHECKOUT

PAGES = re.findall(r"views/(\w+)\.py", (CHECKOUT / "app" / "main.py").read_text())  # a new page joins by itself
DEFAULT = "trade_offs"  # answers at / alone
ARTIFACTS = Path(os.environ.get("CERTSCOPE_ARTIFACTS") or CHECKOUT / "var" / "artifacts")
WIDE, NARROW, TALLEST = 1440, 390, 16_000
LOOKED_AT = {("light", WIDE), ("dark", NARROW)}  # by axe: each theme's colours, each width's contents

# Boxes of the page's main part that reach beyond the window's right edge and are not inside something that scrolls by itself.
STICKING_OUT = """() => {
    const main = document.querySelector('[data-testid=stMainBlockContainer]');
    const clipped = e => {
        for (let up = e.parentElement; up && up !== main; up = up.parentElement)
            if (getComputedStyle(up).overflowX !== 'visible') return true;
        return false;
    };
    return [...main.querySelectorAll('*')]
        .filter(e => { const box = e.getBoundingClientRect(); return box.width > 0 && box.right > innerWidth + 1 && !clipped(e); })
        .map(e => e.outerHTML.slice(0, 160));
}"""


@pytest.fixture(params=["light", "dark"])
def themed(request, browser):
    """A visitor's page in one theme, and the theme's name."""
    context = browser.new_context(viewport={"width": WIDE, "height": 1000}, color_scheme=request.param)
    page = context.new_page()
    page.set_default_timeout(60_000)
    yield page, request.param
    assert page.get_by_test_id("stException").count() == 0
    context.close()


def settled(page):
    """The script has run, and every figure is drawn."""
    expect(page.locator("[data-testid=stApp][data-test-script-state=notRunning]")).to_be_visible(timeout=60_000)
    page.wait_for_function(
        "[...document.querySelectorAll('.stPlotlyChart')].every(c => c.querySelector('.main-svg')) && !document.querySelector('[data-testid=stSkeleton]')"
    )
    page.wait_for_timeout(500)  # transitions of colours


def violations(page):
    """What axe calls serious or critical, a line each."""
    found = Axe().run(page).response["violations"]
    return [
        f"{v['id']}: {node['html'][:200]} — {'; '.join(c['message'] for c in node['any'] + node['all'] + node['none'])}"
        for v in found if v["impact"] in ("serious", "critical") for node in v["nodes"]
    ]  # fmt: skip


def picture(page, name):
    """A screenshot of the whole page: its main part scrolls, so the window is made as high as that."""
    width = page.viewport_size["width"]
    height = page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
    page.set_viewport_size({"width": width, "height": min(height + 60, TALLEST)})
    settled(page)
    ARTIFACTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"{name}-{width}.png")


@pytest.mark.parametrize("name", PAGES)
def test_is_accessible_and_fits(name, themed, address):
    page, theme = themed
    page.goto(f"{address}/{'' if name == DEFAULT else name}")
    expect(page.get_by_role("heading", level=1).first).to_be_visible(timeout=60_000)
    for width in (WIDE, NARROW):
        page.set_viewport_size({"width": width, "height": 1000})
        settled(page)
        if (theme, width) in LOOKED_AT:
            assert not violations(page)
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width
        assert not page.evaluate(STICKING_OUT)
        picture(page, f"{name}-{theme}")
        assert not page.evaluate(STICKING_OUT)
    levels = page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map(heading => +heading.tagName[1])"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels
