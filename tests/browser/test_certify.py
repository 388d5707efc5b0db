"""Certifying an image of one's own, in a real browser."""

import base64
import io
import json
import re
import struct
import zlib

import numpy as np
from PIL import Image, ImageDraw
from playwright.sync_api import expect

from backend.home import PRECOMPUTED
from tests.browser import certificate_of, image_input, opened

PAGE, TITLE = "certify_image?n=1,000", "Certify an image"


def bring(page, way):
    page.get_by_test_id("stButtonGroup").first.get_by_text(way, exact=True).click()


def stroke(page, *points):
    """Draw a line on the canvas with the mouse."""
    box = page.locator("canvas").bounding_box()
    (x, y), *rest = points
    page.mouse.move(box["x"] + x, box["y"] + y)
    page.mouse.down()
    for x, y in rest:
        page.mouse.move(box["x"] + x, box["y"] + y, steps=10)
    page.mouse.up()


def certify(page):
    page.get_by_role("button", name="Certify", exact=True).click()
    expect(page.get_by_text("Certified ℓ2 radius").first).to_be_visible(timeout=90_000)


def test_draws_a_seven_certifies_and_attacks_it(page, address):
    opened(page, address, PAGE, TITLE)
    bring(page, "Draw")
    expect(page.locator("canvas")).to_be_visible()
    expect(page.get_by_role("button", name="Certify", exact=True)).to_be_disabled()
    expect(page.get_by_role("button", name="Undo", exact=True)).to_be_disabled()
    stroke(page, (70, 60), (210, 60), (130, 230))
    expect(page.get_by_text("280×280 pixels")).to_be_visible()
    stroke(page, (20, 250), (60, 250))  # a slip
    page.get_by_role("button", name="Undo", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Clear", exact=True)).to_be_enabled()
    certify(page)
    certificate = certificate_of(page)
    assert certificate["class"] == "7"
    image = np.array(certificate["image"]["values"]).reshape(28, 28)
    assert image.max() > 200
    assert (image[-10:, :9] == 0).all()  # the slip, at the bottom left, was taken back
    page.get_by_role("button", name="Attack it").click()
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_text("Searching")).to_have_count(0)
    page.get_by_role("button", name="Attack it", exact=True).click()
    expect(page.get_by_role("button", name="Attack it again")).to_be_visible(timeout=120_000)
    said = page.get_by_text("robust radius of the smoothed classifier").inner_text()
    low, high = map(float, re.search(r"([\d.]+) ≤ robust radius .* ≤ ([\d.]+)\.", said).groups())
    assert 0 < low < high < 10
    assert certificate["radius"] - low < 0.001
    expect(page.get_by_text(re.compile(r"of 10,000 fresh votes for \d, [\d,]+ for 7"))).to_be_visible()
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.get_by_role("button", name="Certify", exact=True)).to_be_disabled()


def test_draws_with_a_finger_on_a_telephone(browser, address):
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    page = context.new_page()
    opened(page, address, PAGE, TITLE)
    bring(page, "Draw")
    page.locator("canvas").scroll_into_view_if_needed()
    box, before = page.locator("canvas").bounding_box(), page.locator("canvas").evaluate("c => c.toDataURL()")
    touch = context.new_cdp_session(page)
    for kind, x, y in [
        ("touchStart", 140, 40),
        *(("touchMove", 140, y) for y in range(50, 230, 15)),
        ("touchEnd", 0, 0),
    ]:
        points = [] if kind == "touchEnd" else [{"x": box["x"] + x, "y": box["y"] + y}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    expect(page.get_by_role("button", name="Undo", exact=True)).to_be_enabled()
    assert page.locator("canvas").evaluate("c => c.toDataURL()") != before
    assert page.locator("canvas").bounding_box() == box, "the page scrolled under the finger"
    certify(page)
    assert certificate_of(page)["class"] == "1"
    context.close()


def test_pastes_an_image_anywhere_on_the_page(page, address):
    opened(page, address, PAGE, TITLE)
    page.locator(".panel[aria-busy=false] > .box").wait_for(state="attached")
    sample = base64.b64encode((PRECOMPUTED / "samples" / "mnist" / "3-test0018.png").read_bytes()).decode()
    page.evaluate(
        """(png) => {
          const bytes = Uint8Array.from(atob(png), c => c.charCodeAt(0))
          const clipboard = new DataTransfer()
          clipboard.items.add(new File([bytes], "3.png", { type: "image/png" }))
          document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData: clipboard, bubbles: true }))
        }""",
        sample,
    )
    expect(page.get_by_text("Pasted: 28×28 pixels.")).to_be_visible()
    expect(page.get_by_role("button", name="Certify", exact=True)).to_be_enabled()
    certify(page)
    certificate = certificate_of(page)
    assert certificate["class"] == "3"
    seen = np.array(certificate["image"]["values"]).reshape(28, 28)
    assert np.array_equal(seen, np.asarray(Image.open(PRECOMPUTED / "samples" / "mnist" / "3-test0018.png")))


def test_the_paste_button_reads_the_clipboard(page, address):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    opened(page, address, PAGE, TITLE)
    bring(page, "Paste")
    page.evaluate("navigator.clipboard.writeText('no image')")
    page.get_by_role("button", name="Paste", exact=True).last.click()
    expect(page.get_by_text("There is no image on the clipboard")).to_be_visible()
    page.evaluate(
        """async () => {
          const canvas = new OffscreenCanvas(700, 700), pen = canvas.getContext("2d")
          pen.fillStyle = "white"; pen.fillRect(0, 0, 700, 700)
          pen.fillStyle = "black"; pen.fillRect(320, 100, 60, 500)
          await navigator.clipboard.write([new ClipboardItem({ "image/png": await canvas.convertToBlob() })])
        }"""
    )
    page.get_by_role("button", name="Paste", exact=True).last.click()
    expect(page.get_by_text("Pasted: 700×700 pixels, scaled down to 512.")).to_be_visible()
    expect(page.get_by_text("inverted: what is drawn must be light on dark")).to_be_visible()


def test_two_networks_side_by_side_and_one_verified_by_upload(page, address, tmp_path):
    models = {
        "Gaussian, σ = 0.5": "gaussian-s0.5-",
        "Gaussian + Consistency, σ = 0.5, λ = 5": "consistency-s0.5-l5-",
    }
    ids = [
        next(PRECOMPUTED.glob(f"mnist-lenet-{name}seed0-*/model.safetensors")).parent.name for name in models.values()
    ]
    opened(page, address, "certify_image?n=1,000&" + "&".join(f"model={run_id}" for run_id in ids), TITLE)
    certify(page)
    expect(page.get_by_text("Certified ℓ2 radius")).to_have_count(2)
    for name in models:
        expect(page.get_by_text(name, exact=True).first).to_be_visible()
    for width in (1440, 1280):  # in the narrower one a name wraps
        page.set_viewport_size({"width": width, "height": 1000})
        boxes = [page.get_by_text("Certified ℓ2 radius").nth(i).bounding_box() for i in (0, 1)]
        assert boxes[0]["y"] == boxes[1]["y"]
    page.set_viewport_size({"width": 390, "height": 900})
    stacked = [page.get_by_text("Certified ℓ2 radius").nth(i).bounding_box() for i in (0, 1)]
    assert stacked[0]["y"] < stacked[1]["y"]
    page.set_viewport_size({"width": 1440, "height": 1000})
    certificate = certificate_of(page)
    page.get_by_text("Check a certificate").click()
    for name, content, says in (
        ("genuine", certificate, "It holds up (match)"),
        ("forged", certificate | {"radius": 2.5}, "Refuted: "),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        page.get_by_test_id("stFileUploader").locator("input[type=file]").last.set_input_files(
            tmp_path / f"{name}.json"
        )
        expect(page.get_by_text(f"{name}.json")).to_be_visible()
        expect(page.get_by_text("It holds up (match)")).to_have_count(0)  # the verdict on the file before
        page.get_by_role("button", name="Verify", exact=True).click()
        expect(page.get_by_text(says)).to_be_visible(timeout=60_000)


def hostile_files(folder):
    """Files with what the page is to say of each: never what it says of the one before, so that a test that has seen
    the words knows the page done with the file. Streamlit loses one that is brought while it begins a rerun."""
    digit = Image.new("L", (300, 200), 255)
    ImageDraw.Draw(digit).line([(80, 40), (200, 40), (120, 170)], fill=0, width=16)
    png = io.BytesIO()
    digit.save(png, "PNG")
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    rows = b"IDAT" + zlib.compress(b"\0" * 3_751 * 30_000, 9)
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, rows, b"IEND")]
    script = "<img src=x onerror=alert(1)>.png"
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    (folder / "notes.png").write_bytes(b"hello, I am a text file")
    (folder / "cut.png").write_bytes(png.getvalue()[:150])
    (folder / script).write_bytes(b"<script>alert(2)</script>")
    Image.new("L", (1, 1), 255).save(folder / "dot.png")
    digit.save(folder / "moving.gif", save_all=True, append_images=[Image.new("L", (300, 200), 255)])
    deep = np.asarray(digit).astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / "deep.png")
    Image.new("CMYK", (300, 200)).save(folder / "blank.jpg")
    digit.convert("CMYK").save(folder / "print.jpg")
    nothing, unreadable = "Nothing stands out from the background", "This file is not an image that can be read here"
    return [
        ("bomb.png", "at most 25 million are read"), ("notes.png", unreadable), ("dot.png", nothing),
        ("moving.gif", "of several frames the first"), ("blank.jpg", nothing), ("deep.png", "300×200 pixels"),
        (script, unreadable), ("print.jpg", "300×200 pixels"), ("cut.png", "The image is damaged or cut off"),
    ]  # fmt: skip


def test_hostile_uploads_each_get_a_sentence(page, address, tmp_path):
    dialogs = []
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    opened(page, address, PAGE, TITLE)
    bring(page, "Upload")
    for name, says in hostile_files(tmp_path):
        image_input(page).set_input_files(tmp_path / name)
        expect(page.get_by_role("button", name=f"Remove {name}", exact=True)).to_be_visible()
        expect(page.get_by_text(says)).to_be_visible()
        usable = name in ("moving.gif", "deep.png", "print.jpg")
        expect(page.get_by_role("button", name="Certify", exact=True)).to_be_enabled(enabled=usable)
        assert page.locator("img[src=x]").count() == 0
    assert dialogs == []


def test_two_visitors_do_not_disturb_each_other(page, address, browser):
    context = browser.new_context()
    second = context.new_page()
    opened(page, address, PAGE, TITLE)
    opened(second, address, "certify_image?n=1,000&mode=fixed+n", TITLE)
    second.get_by_test_id("stButtonGroup").nth(1).get_by_text("3", exact=True).click()
    page.get_by_role("button", name="Certify", exact=True).click()
    certify(second)
    expect(page.get_by_text("Certified ℓ2 radius")).to_be_visible(timeout=90_000)
    mine, others = certificate_of(page), certificate_of(second)
    assert (mine["class"], mine["mode"]) == ("0", "anytime")
    assert (others["class"], others["mode"]) == ("3", "fixed")
    context.close()
