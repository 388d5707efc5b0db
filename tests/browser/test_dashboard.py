"""A visitor's way through the dashboard, in a real browser."""

import itertools
import re

import numpy as np
from PIL import Image
from playwright.sync_api import expect

from backend.certification.confidence import lower_bound, radius
from backend.home import PRECOMPUTED
from backend.run import find_run
from backend.verify import verify
from tests.browser import certificate_of, image_input, opened


def curve_names(page):
    """The names of the lines of the certified-accuracy figures, in the order drawn."""
    return page.evaluate(
        "[...document.querySelectorAll('[class*=st-key-curves] .js-plotly-plot')].map("
        "p => p._fullData.filter(t => t.fill === 'none').map(t => t.name))"  # the bands of seeds have no name
    )


def test_reads_a_curve(page, address):
    """All σ in one: ours and the published networks of six methods, monotone, ending at 0."""
    opened(page, address, "?extras=all+σ+in+one&extras=published+networks", "What does certified robustness cost?")
    chart = page.locator(".st-key-curves")
    expect(chart.get_by_text("Gaussian + Consistency, σ = 0.5, λ = 5")).to_be_visible()
    expected = len(list(PRECOMPUTED.glob("mnist-*/certificates.tsv.gz")))
    lines = page.evaluate(
        "Object.fromEntries(document.querySelector('.st-key-curves .js-plotly-plot')._fullData.filter(t => t.fill === 'none')"
        ".map(t => [t.name, [...t.y]]))"
    )
    lines.pop("published networks")  # an entry of the legend alone
    published = [lines.pop(name) for name in list(lines) if name.startswith("published: ")]
    assert len(published) == 6
    assert all(0.85 < line[0] < 1 for line in published)  # MACER at σ = 1: 0.89
    assert 10 <= len(lines) <= expected
    assert all(0.9 < line[0] <= 1 and line[-1] == 0 for line in lines.values())
    assert all(a >= b for line in lines.values() for a, b in itertools.pairwise(line))
    expect(page.get_by_text("Does Consistency beat the baselines?")).to_be_visible()
    expect(page.get_by_text(re.compile(": Consistency is above Gaussian"))).to_have_count(6)  # two recipes
    expect(
        page.get_by_text(
            "the ACR of Gaussian + Consistency is above Gaussian, Stability and MACER (one seed) at every σ"
        )
    ).to_be_visible()


def test_filters_live_in_the_url(page, address):
    opened(page, address, "?sigma=0.5&method=Gaussian", "What does certified robustness cost?")
    expect(page.locator("[class*=st-key-curves] .js-plotly-plot")).to_have_count(1)
    assert curve_names(page) == [["Gaussian (5 seeds)", "published: Gaussian", "published networks"]]
    page.locator("[class*=st-key-method]").get_by_text("Gaussian + Consistency", exact=True).click()
    expect(page.locator("[class*=st-key-curves]").get_by_text("Gaussian + Consistency")).to_be_visible()
    assert len(curve_names(page)[0]) == 5
    expect(page).to_have_url(re.compile(r"sigma=0\.5"))
    assert "method=" not in page.url or "Consistency" in page.url


def test_a_view_is_kept_in_the_url_whatever_was_chosen_before(page, address):
    """Another recipe takes a caption away above the figures; what is chosen there later is in the address all the same."""
    opened(page, address, "?sigma=0.5", "What does certified robustness cost?")
    page.locator(".st-key-recipe").get_by_text("quick, 8 epochs").click()
    expect(page.get_by_text("Left out, trained otherwise")).to_have_count(0)
    expect(page.get_by_test_id("stStatusWidget")).to_have_count(0)
    page.locator(".st-key-extras").get_by_text("95 % bands").click()
    expect(page).to_have_url(re.compile(r"extras=95\+%25\+bands"))
    page.locator(".st-key-r").get_by_role("slider").press("ArrowRight")
    expect(page).to_have_url(re.compile(r"r=0\.51"))
    page.reload()
    expect(page.locator(".st-key-r").get_by_role("slider")).to_have_value("0.51", timeout=30_000)
    expect(page.locator(".st-key-extras").get_by_role("button", pressed=True)).to_have_count(2)


def test_a_figure_is_taken_home(page, address):
    """The numbers as CSV, the figure as SVG and PDF, each of them what it says."""
    opened(page, address, "?sigma=0.5", "What does certified robustness cost?")
    page.locator("[class*=st-key-curves]").get_by_role("button", name="Download", exact=True).click()
    for kind, start in (("CSV", b"group_id,r,certified_accuracy"), ("SVG", b"<svg"), ("PDF", b"%PDF")):
        with page.expect_download(timeout=120_000) as download:
            page.get_by_role("button", name=kind, exact=True).click()
        with open(download.value.path(), "rb") as file:
            assert file.read(200).startswith(start)
        assert download.value.suggested_filename == f"certscope-curves-0.5.{kind.lower()}"


def test_compares_runs(page, address):
    opened(page, address, "compare", "Compare runs")
    expect(page.get_by_text("b certifies larger radii")).to_be_visible()
    expect(page.locator(".stPlotlyChart")).to_have_count(5)
    radius_field = page.get_by_role("spinbutton", name="Radius r")
    radius_field.fill("1.2")
    radius_field.press("Enter")
    expect(page.get_by_text("Certified accuracy at 1.2, b less a")).to_be_visible()
    expect(page).to_have_url(re.compile(r"r=1\.2"))
    page.get_by_text("Show the pictures").click()
    expect(page.locator(".stImage img").first).to_be_visible(timeout=60_000)
    expect(page.get_by_text(re.compile(r"gained: \d+% → \d+% of the seeds, class \d, image \d+")).first).to_be_visible()
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    expect(page.get_by_text("Certified accuracy at 1.2, b less a")).to_be_visible()
    expect(page.locator(".stImage img").first).to_be_visible(timeout=60_000)


def test_certifies_an_upload(page, address, tmp_path):
    """A dark digit on white paper, enlarged: what the network sees is a light one, and it is certified."""
    sample = Image.open(PRECOMPUTED / "samples" / "mnist" / "7-test0000.png")
    photo = Image.new("L", (400, 500), 255)
    photo.paste(sample.resize((280, 280)).point(lambda v: 255 - v), (60, 120))
    photo.save(tmp_path / "seven.jpg")
    opened(page, address, "certify_image", "Certify an image")
    page.get_by_text("Upload", exact=True).filter(visible=True).first.click()
    image_input(page).set_input_files(tmp_path / "seven.jpg")
    expect(page.get_by_text("inverted: what is drawn must be light on dark")).to_be_visible()
    page.get_by_role("button", name="Certify", exact=True).click()
    expect(page.get_by_text("Certified ℓ2 radius")).to_be_visible(timeout=60_000)
    certificate = certificate_of(page)
    assert (certificate["class"], certificate["abstained"]) == ("7", False)
    votes = certificate["counts"][7]
    assert sum(certificate["counts"]) == certificate["n"] == certificate["samples"] == 10_000
    assert certificate["p_lower"] == lower_bound(
        votes, 10_000, certificate["alpha"] / 2
    )  # half is spent on the last look
    assert certificate["radius"] == radius(certificate["p_lower"], certificate["sigma"])
    assert certificate["radius"] > 0.3
    shown = page.get_by_test_id("stMetricValue").nth(1).inner_text()
    assert 0 <= certificate["radius"] - float(shown) < 0.001
    assert np.array(certificate["image"]["values"]).max() > 200


def test_progress_and_a_provisional_bound_while_samples_arrive(page, address):
    opened(page, address, "certify_image?n=100,000&mode=fixed+n", "Certify an image")
    page.get_by_role("button", name="Certify", exact=True).click()
    expect(page.get_by_text("provisional: it becomes a certificate when all samples are in")).to_be_visible()
    expect(page.get_by_text(re.compile(r"of 100,000 samples, \d+ s left"))).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text(re.compile("samples, .* left"))).to_have_count(0)
    expect(page.get_by_text("Certified ℓ2 radius")).to_have_count(0)


def test_stopping_any_time_keeps_a_certificate_that_verifies(page, address, tmp_path):
    opened(page, address, "certify_image?n=100,000", "Certify an image")
    page.get_by_role("button", name="Certify", exact=True).click()
    expect(page.get_by_text("certified: stop when it is enough")).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Certified ℓ2 radius")).to_be_visible()
    certificate = certificate_of(page)
    assert certificate["stop"] is None
    assert certificate["samples"] < 100_000
    assert verify(certificate, lambda run_id: find_run(run_id, PRECOMPUTED), "cpu").word == "match"


def test_robust_at_r(page, address):
    opened(page, address, "certify_image?mode=robust+at+r?", "Certify an image")
    page.get_by_role("button", name="Certify", exact=True).click()
    expect(page.get_by_text("Robust at r: the certified radius reaches it. (r = 0.5)")).to_be_visible(timeout=30_000)
    assert certificate_of(page)["samples"] < 1_000


def test_a_wrong_file_gets_a_sentence(page, address, tmp_path):
    (tmp_path / "text.png").write_text("<script>alert(1)</script>")
    (tmp_path / "cut.png").write_bytes((PRECOMPUTED / "samples" / "mnist" / "7-test0000.png").read_bytes()[:60])
    opened(page, address, "certify_image", "Certify an image")
    page.get_by_text("Upload", exact=True).filter(visible=True).first.click()
    image_input(page).set_input_files(tmp_path / "text.png")
    expect(page.get_by_text("This file is not an image that can be read here")).to_be_visible()
    expect(page.get_by_role("button", name="Certify", exact=True)).to_be_disabled()
    image_input(page).set_input_files(tmp_path / "cut.png")
    expect(page.get_by_text("The image is damaged or cut off")).to_be_visible()


def test_starts_a_run_and_sees_it_finish_on_the_plot(page, own_address):
    """In another tab, which stays open and draws it as soon as it is published."""
    plots = page.context.new_page()
    opened(plots, own_address, "", "What does certified robustness cost?")
    opened(page, own_address, "runs", "Runs")
    expect(page.get_by_text("Nothing was started here yet")).to_be_visible()
    page.get_by_role("spinbutton", name="Epochs").fill("15")
    page.get_by_role("spinbutton", name="Samples n", exact=True).fill("500")
    page.get_by_role("spinbutton", name="Samples n", exact=True).press("Enter")
    expect(page.get_by_text("54,000")).to_be_visible()  # 90 images, 500 + 100 samples
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_text(re.compile("digits-smallcnn-consistency-s0.5-l5-seed0-.* — finished"))).to_be_visible(
        timeout=120_000
    )
    plots.get_by_test_id("stSelectbox").first.click()
    plots.get_by_role("option", name="digits").click()
    expect(plots.get_by_text("n = 500, n0 = 100, α = 0.001, 90 test images").first).to_be_visible()
    expect(plots.locator("[class*=st-key-curves] .scatterlayer .trace")).to_have_count(1)
    assert plots.get_by_test_id("stException").count() == 0


def test_cancels_a_run_and_resumes_it(page, own_address):
    """A button that moves while it is pressed is a click that nobody hears: Cancel stays where it was first drawn."""
    opened(page, own_address, "runs", "Runs")
    page.get_by_role("spinbutton", name="Seed").fill("7")
    page.get_by_role("spinbutton", name="Samples n", exact=True).fill("20000")
    page.get_by_role("spinbutton", name="Samples n", exact=True).press("Enter")
    expect(page.get_by_text("1,809,000")).to_be_visible()
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_text(re.compile("seed7-.* — running"))).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text(re.compile("seed7-.* — cancelled"))).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    page.evaluate("""() => {
        window.places = new Set()
        const watch = new MutationObserver(() => {
            for (const button of document.querySelectorAll('[class*=st-key-cancel] button'))
                places.add(Math.round(button.getBoundingClientRect().x))
        })
        watch.observe(document.body, { childList: true, subtree: true })
    }""")
    expect(page.get_by_text(re.compile("seed7-.* — (running|queued)"))).to_be_visible()
    expect(page.locator("[class*=st-key-job-]", has_text="seed7-").get_by_text("Delete")).to_have_count(0)
    assert page.evaluate("places.size") == 1
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text(re.compile("seed7-.* — cancelled"))).to_be_visible()
