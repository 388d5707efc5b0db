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
