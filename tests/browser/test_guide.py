"""The Guide, in a real browser."""

import re

from playwright.sync_api import expect

from app.figures.rounding import round_down
from backend.certification.planning import expected_radius
from backend.training.methods import METHODS


def test_formulas_are_set_links_lead_on_and_a_slider_moves_the_radius(page, address):
    page.goto(f"{address}/guide?n=1,000")
    expect(page.get_by_role("heading", name="Sources", level=2)).to_be_attached(timeout=60_000)
    expect(page.locator(".katex-display")).to_have_count(len(METHODS))
    assert page.locator(".katex-error").count() == 0
    radius = page.get_by_test_id("stMetric").filter(has_text="Certified radius").get_by_test_id("stMetricValue")
    expect(radius).to_have_text(round_down(expected_radius(0.99, 0.5, 1_000, 0.001)))
    slider = page.get_by_test_id("stSlider").first.get_by_role("slider")
    slider.focus()
    slider.press("ArrowRight")
    expect(radius).to_have_text(round_down(expected_radius(0.995, 0.5, 1_000, 0.001)))
    expect(page).to_have_url(re.compile(r"[?&]p=0\.995"))
    page.get_by_role("link", name="What Certscope does not tell").click()
    expect(page.get_by_role("heading", name="What Certscope does not tell", level=2)).to_be_in_viewport()


def test_what_a_link_asks_for_and_is_not_offered_is_told_of(page, address):
    """On the page that it is asked of; and an address that is right stays."""
    thumbs = page.get_by_test_id("stSliderThumbValue")
    page.goto(f"{address}/guide?n=1,000&sigma=1.0&p=2&r2=9")
    expect(thumbs.nth(1)).to_have_text("1,000", timeout=60_000)
    expect(thumbs.nth(2)).to_have_text("1.0")
    expect(page.get_by_text(re.compile("The link asks for p_A = 2, and offered are 0.6, 0.7, "))).to_be_visible()
    expect(page.get_by_text("The link asks for r2 = 9, which is no number from 0.05 to 5.")).to_be_visible()
    page.reload()
    expect(thumbs.nth(1)).to_have_text("1,000", timeout=60_000)
    page.goto(f"{address}/playground?first=MACER&second=nobody&noise=9")
    expect(page.get_by_role("combobox", name="Method a")).to_have_value("MACER", timeout=60_000)
    for told in ("method b nobody, and offered are ", "σ = 9, and offered are 0.02"):
        expect(page.get_by_text(f"The link asks for {told}")).to_be_visible()
    page.goto(f"{address}/certify_image?mode=fixed&n=100000")
    for told in (
        "the mode fixed, and offered are any time, fixed n, robust at r?.",
        "n = 100000, and offered are 1,000, 10,000, 100,000.",
    ):
        expect(page.get_by_text(f"The link asks for {told}")).to_be_visible(timeout=60_000)
    page.goto(f"{address}/?extras=bounds")
    told = page.get_by_text("The link asks for the extra bounds, and offered are all σ in one, 95 % bands, envelope")
    expect(told).to_be_visible(timeout=60_000)
    page.get_by_role("button", name="envelope").click()
    expect(told).to_have_count(0)
