"""Pages in a browser: what several tests do there."""

import json

from playwright.sync_api import expect


def opened(page, address, path, title):
    """Go to a page and wait until it is drawn."""
    page.goto(f"{address}/{path}")
    expect(page.get_by_role("heading", name=title, level=1)).to_be_visible()
    expect(page.get_by_test_id("stStatusWidget")).to_have_count(0)


def image_input(page):
    """The upload of an image, not that of a certificate."""
    return page.get_by_test_id("stFileUploader").filter(has_text="PNG, JPEG").locator("input[type=file]")


def certificate_of(page):
    """The certificate on the page, downloaded."""
    with page.expect_download() as download:
        page.get_by_text("Download the certificate (JSON)").click()
    with open(download.value.path()) as file:
        return json.load(file)
