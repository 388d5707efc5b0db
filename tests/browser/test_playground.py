"""The playground in a real browser: a preset trains two networks, and their balls are drawn where they are claimed."""

import re

from playwright.sync_api import expect

DRAWN = """name => {
    const plot = [...document.querySelectorAll('.stPlotlyChart .js-plotly-plot')][name]
    const axes = plot._fullLayout
    const balls = plot._fullData.filter(t => t.mode === 'lines' && t.legendgroup === 'right')[0]
    return {
        x: Math.abs(axes.xaxis._length / (axes.xaxis.range[1] - axes.xaxis.range[0])),
        y: Math.abs(axes.yaxis._length / (axes.yaxis.range[1] - axes.yaxis.range[0])),
        widest: Math.max(...[...balls.y].filter(Number.isFinite)) - Math.min(...[...balls.y].filter(Number.isFinite)),
        regions: plot._fullData.filter(t => t.type === 'heatmap').length,
    }
}"""


def test_a_preset_trains_two_networks_and_draws_their_balls(page, address):
    page.goto(f"{address}/playground?samples=100")
    expect(page.get_by_role("heading", name="Playground", level=1)).to_be_visible(timeout=60_000)
    expect(page.locator(".stPlotlyChart")).to_have_count(2, timeout=60_000)  # the data
    page.get_by_role("button", name="Little noise").click()
    expect(page.get_by_role("heading", name="Certified accuracy against radius")).to_be_visible(timeout=180_000)
    expect(page.get_by_test_id("stProgress")).to_have_count(0, timeout=60_000)
    expect(page.locator(".stPlotlyChart")).to_have_count(3, timeout=60_000)
    expect(page).to_have_url(re.compile(r"noise=0\.03"))
    expect(page.get_by_text("Point by point,")).to_be_visible()
    for place in range(2):
        drawn = page.evaluate(DRAWN, place)
        assert abs(drawn["x"] / drawn["y"] - 1) < 0.01  # a ball is a circle
        assert 0 < drawn["widest"] <= 1
        assert drawn["regions"] == 2
    page.get_by_text("base classifier", exact=True).click()
    expect(page.get_by_text("Shaded: the base classifier's answer")).to_be_visible(timeout=60_000)
    page.reload()  # another session: what was trained is there without a press
    expect(page.get_by_text("Shaded: the base classifier's answer")).to_be_visible(timeout=60_000)
