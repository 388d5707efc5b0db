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


def test_links_may_be_written_by_hand(page, address):
    """Options in their plain form as well as in that of the address; what is not offered is told of, on the page that it is asked of."""
    thumbs = page.get_by_test_id("stSliderThumbValue")
    page.goto(f"{address}/guide?n=1000&sigma=1&p=2&r2=9")
    expect(thumbs.nth(1)).to_have_text("1,000", timeout=60_000)
    expect(thumbs.nth(2)).to_have_text("1.0")
    expect(page.get_by_text("The link asks for p_A = 2, which is not offered here.")).to_be_visible()
    expect(page.get_by_text("The link asks for r2 = 9, which is no number from 0.05 to 5.")).to_be_visible()
    page.goto(f"{address}/playground?first=macer&second=nobody&noise=9")
    expect(page.get_by_role("combobox", name="Method a")).to_have_value("MACER", timeout=60_000)
    for told in ("method b nobody", "σ = 9"):
        expect(page.get_by_text(f"The link asks for {told}, which is not offered here.")).to_be_visible()
    page.goto(f"{address}/certify_image?mode=fixed&n=100000")
    expect(page.get_by_test_id("stSlider").get_by_text("Samples n")).to_be_visible(timeout=60_000)
    expect(thumbs.first).to_have_text("100,000")
    expect(page.get_by_text("The link asks for")).to_have_count(0)
