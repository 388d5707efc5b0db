"""Several visitors at once, each with filters of their own; and one whom no page of another name may send."""

from http.client import HTTPConnection

import pytest
from playwright.sync_api import expect

SIGMAS = ("0.25", "0.5", "1")
VISITORS = 3


def test_visitors_at_once_keep_their_own_state(browser, address):
    contexts = [browser.new_context(viewport={"width": 1000, "height": 800}) for _ in range(VISITORS)]
    pages = [context.new_page() for context in contexts]
    wanted = [(SIGMAS[i % len(SIGMAS)], round(0.2 + 0.05 * i, 2)) for i in range(VISITORS)]
    for page, (sigma, r) in zip(pages, wanted, strict=True):
        page.set_default_timeout(60_000)
        page.goto(f"{address}/?sigma={sigma}&r={r:.2f}", wait_until="commit")
    for page, (_, r) in zip(pages, wanted, strict=True):
        expect(page.get_by_text(f"with a radius of at least {r:g}:")).to_be_visible(timeout=60_000)
        page.get_by_test_id("stSlider").get_by_role("slider").first.press("ArrowRight")
    for page, (sigma, r) in zip(pages, wanted, strict=True):
        expect(page.get_by_text(f"with a radius of at least {r + 0.01:g}:")).to_be_visible(timeout=60_000)
        chosen = (
            page.get_by_role("radiogroup", name="Noise σ")
            .or_(page.get_by_role("toolbar", name="Noise σ"))
            .or_(page.get_by_role("group", name="Noise σ"))
        )
        assert chosen.locator("[data-selected=true]").all_inner_texts() == [sigma]
        assert page.get_by_test_id("stException").count() == 0
    for context in contexts:
        context.close()


@pytest.mark.parametrize(("name", "status"), [("127.0.0.1", 101), ("localhost", 101), ("evil.example", 403)])
def test_a_page_whose_name_was_pointed_here_is_refused(address, name, status):
    """DNS rebinding: the browser calls a page of evil.example one origin with what listens on this machine."""
    connection = HTTPConnection(address.removeprefix("http://"), timeout=20)
    connection.request("GET", "/_stcore/stream", headers={
        "Host": name, "Origin": f"http://{name}", "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    })  # fmt: skip
    assert connection.getresponse().status == status
    connection.close()
