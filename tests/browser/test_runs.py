"""Runs in a real browser: a grid, a clone, deleting, a run's own page, a read-only server."""

import gzip
import re

from playwright.sync_api import expect

from backend.home import PRECOMPUTED, runs_root
from backend.run import Run
from backend.transport import unpack
from tests.browser import opened

SHIPPED = "mnist-lenet-gaussian-s0.5-seed0-06682b8c"


def typed(page, role, name, value):
    field = page.get_by_role(role, name=name, exact=True)
    field.fill(value)
    field.press("Enter")
    expect(page.get_by_test_id("stStatusWidget")).to_have_count(0)


def cards(page):
    return page.locator("[class*=st-key-job-]")


def test_a_grid_is_launched_and_finishes(page, own_address):
    opened(page, own_address, "runs", "Runs")
    page.get_by_role("radio", name="Grid").click()
    typed(page, "textbox", "Noise σ", "0.25,0.5")
    expect(page.get_by_text("'0.25,0.5' is none")).to_be_visible()
    typed(page, "textbox", "Noise σ", "0.25")
    typed(page, "spinbutton", "Epochs", "1")
    typed(page, "spinbutton", "Samples n", "100")
    expect(page.get_by_text("36,000")).to_be_visible()  # two runs, 90 images, 100 + 100 samples
    expect(page.get_by_text("not known")).to_be_visible()
    page.get_by_role("button", name="Start 2 runs").click()
    expect(page.get_by_text("2 runs are in the queue")).to_be_visible()
    expect(cards(page).get_by_text(re.compile("digits-.* — finished"))).to_have_count(2, timeout=300_000)
    expect(page.get_by_text("2 finished")).to_be_visible()
    expect(page.get_by_text("Finished already, and not computed again: 2 of the 2 runs.")).to_be_visible()
    page.reload()
    page.get_by_role("radio", name="Grid").click()
    typed(page, "textbox", "Noise σ", "0.25 1")
    typed(page, "spinbutton", "Epochs", "1")
    typed(page, "spinbutton", "Samples n", "100")
    expect(page.get_by_text("Finished already, and not computed again: 2 of the 4 runs.")).to_be_visible()
    expect(page.get_by_text(re.compile("finished runs? of this machine"))).to_be_visible()


def test_a_clone_differs_in_what_was_changed(page, own_address):
    opened(page, own_address, "runs?find=gaussian+s0.25", "Runs")
    page.get_by_role("button", name="Clone").click()
    expect(page.get_by_text("The form holds the settings of digits-smallcnn-gaussian-s0.25-seed0-")).to_be_visible()
    expect(page.get_by_role("spinbutton", name="Noise σ")).to_have_value("0.25")
    expect(page.get_by_role("spinbutton", name="Epochs")).to_have_value("1")
    expect(page.get_by_role("spinbutton", name="Samples n", exact=True)).to_have_value("100")
    typed(page, "spinbutton", "Seed", "3")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.get_by_text(re.compile("digits-smallcnn-gaussian-s0.25-seed3-.* — finished"))).to_be_visible(
        timeout=120_000
    )


def test_deleting_asks_first(page, own_address):
    opened(page, own_address, "runs?find=gaussian+seed3", "Runs")
    expect(cards(page)).to_have_count(1)
    for answer in ("Keep it", "Delete for good"):
        page.get_by_role("button", name="Delete").click()
        expect(page.get_by_role("dialog").get_by_text("This cannot be undone")).to_be_visible()
        expect(cards(page)).to_have_count(1)
        page.get_by_role("dialog").get_by_role("button", name=answer).click()
        expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_text(re.compile("gaussian-s0.25-seed3-.* is deleted"))).to_be_visible()
    page.get_by_role("textbox", name="Find").fill("gaussian seed3")
    page.get_by_role("textbox", name="Find").press("Enter")
    expect(page.get_by_text("No run fits these filters")).to_be_visible()


def test_a_deep_link_shows_a_run(page, address, home):
    opened(page, address, f"run?run={SHIPPED}", "Gaussian, σ = 0.5")
    expect(page.get_by_text("98.40%")).to_be_visible()
    expect(page.get_by_text("python -m backend run --dataset mnist --method gaussian")).to_be_visible()
    expect(page.locator(".stPlotlyChart")).to_have_count(2)
    expect(page.get_by_role("button", name="Clone")).to_be_visible()
    expect(page.get_by_role("button", name="Delete")).to_have_count(0)
    with page.expect_download() as download:
        page.get_by_role("button", name="Certificates").click()
    assert download.value.suggested_filename == f"{SHIPPED}-certificates.tsv"
    shipped = (PRECOMPUTED / SHIPPED / "certificates.tsv.gz").read_bytes()
    assert gzip.decompress(shipped) == download.value.path().read_bytes()
    with page.expect_download() as download:
        page.get_by_role("button", name="Whole run").click()
    assert unpack(download.value.path()) == [SHIPPED]
    assert Run(runs_root() / SHIPPED).spec == Run(PRECOMPUTED / SHIPPED).spec
    usual = page.viewport_size
    page.set_viewport_size({"width": 390, "height": 844})
    facts = page.get_by_test_id("stTableStyledTable").filter(has_text="generator")
    expect(facts).to_contain_text(Run(PRECOMPUTED / SHIPPED).environment()["commit"])
    page.wait_for_function(
        "t => t.scrollWidth <= t.parentElement.clientWidth", arg=facts.element_handle()
    )  # nothing of it is cut
    page.set_viewport_size(usual)
    page.get_by_role("button", name="Clone").click()
    expect(page.get_by_role("heading", name="Runs", level=1)).to_be_visible()
    expect(page.get_by_role("spinbutton", name="Epochs")).to_have_value("8")


def test_the_list_leads_to_a_runs_page_and_its_weights_are_certified_again(page, own_address):
    opened(page, own_address, "runs?find=consistency+s0.25", "Runs")
    page.get_by_role("link", name="Open").click()
    expect(page.get_by_role("heading", name="Gaussian + Consistency, σ = 0.25")).to_be_visible()
    page.get_by_text("Certify these weights again").click()
    expect(page.get_by_text("These are the settings that it was certified with")).to_be_visible()
    typed(page, "spinbutton", "Samples n", "150")
    page.get_by_role("button", name="Certify these weights").click()
    expect(page.get_by_text(re.compile("is (queued|running)"))).to_be_visible()
    expect(page.get_by_role("heading", name="These weights, certified again")).to_be_visible()
    expect(page.get_by_text("finished: n = 150, n0 = 100")).to_be_visible(timeout=120_000)
    opened(page, own_address, "runs?find=consistency+s0.25", "Runs")
    expect(page.get_by_text(re.compile("weights of digits-smallcnn-consistency.*, 90 images certified"))).to_be_visible(
        timeout=120_000
    )


def test_a_run_that_is_not_there_gets_a_sentence(page, address):
    opened(page, address, "run?run=<b>..%2Fetc", "Run")
    expect(page.get_by_text("this is none")).to_be_visible()
    opened(page, address, "run?run=digits-of-nobody", "Run")
    expect(page.get_by_text("There is no run digits-of-nobody here")).to_be_visible()


def test_a_read_only_server_has_no_buttons_that_change_anything(page, read_only_address):
    opened(page, read_only_address, "runs", "Runs")
    expect(page.get_by_text("it starts, stops and deletes nothing")).to_be_visible()
    expect(page.get_by_text("Nothing was started here yet.")).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("Start|Clone|Delete|Cancel|Resume"))).to_have_count(0)
    opened(page, read_only_address, f"run?run={SHIPPED}", "Gaussian, σ = 0.5")
    expect(page.get_by_text("98.40%")).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("Clone|Delete|Certify these"))).to_have_count(0)
    expect(page.get_by_text("Certify these weights again")).to_have_count(0)
