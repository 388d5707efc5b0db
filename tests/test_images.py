import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from backend.datasets import DATASETS
from backend.home import PRECOMPUTED
from backend.image_files import to_rgb
from backend.images import DATA_URL, MAX_BYTES, MAX_URL, ImageError, decode, from_browser, see

MNIST = DATASETS["mnist"]


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def drawn(size=(300, 200), paper="white", ink="black", mode="RGB"):
    image = Image.new(mode, size, paper)
    ImageDraw.Draw(image).line([(80, 40), (200, 40), (120, 170)], fill=ink, width=16)
    return image


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_dark_drawing_on_paper_becomes_a_light_centred_digit(kind):
    seen = see(decode(encoded(drawn(), kind)), MNIST)
    pixels = seen.pixels[0].astype(float)
    assert seen.pixels.shape == (1, 28, 28)
    assert seen.pixels.dtype == np.uint8
    assert pixels.max() > 200
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20  # MNIST's box
    mass = [(pixels.sum(axis) * (np.arange(28) + 0.5)).sum() / pixels.sum() for axis in (0, 1)]
    assert mass == pytest.approx([14, 14], abs=1)
    assert any("inverted" in step for step in seen.steps)


def test_inversion_can_be_chosen():
    light = decode(encoded(drawn(paper="black", ink="white")))
    dark = decode(encoded(drawn()))
    assert np.array_equal(see(light, MNIST).pixels, see(dark, MNIST).pixels)
    assert np.array_equal(see(light, MNIST, "no").pixels, see(dark, MNIST, "yes").pixels)
    assert not any("inverted" in step for step in see(light, MNIST).steps)


@pytest.mark.parametrize("name", ["mnist", "digits", "fashion_mnist"])
def test_samples_are_seen_exactly_as_they_are_in_the_data_set(name):
    dataset = DATASETS[name]
    split = dataset.load(train=False)
    paths = sorted((PRECOMPUTED / "samples" / name).glob("*.png"))
    assert len(paths) == 10
    for path in paths:
        label, index = path.stem.split("-test")
        assert split.labels[int(index)] == int(label)
        assert np.array_equal(see(decode(path.read_bytes()), dataset, "no").pixels, split.images[int(index)])


@pytest.mark.parametrize(
    "image",
    [
        drawn(mode="L", paper=255, ink=0),
        drawn(mode="RGBA", paper=(0, 0, 0, 0), ink=(0, 0, 0, 255)),  # black on transparent
        drawn(mode="CMYK", paper=(0, 0, 0, 0), ink=(0, 0, 0, 255)),
        drawn(mode="1", paper=1, ink=0),
        drawn(mode="P", paper=0, ink=1),
        Image.fromarray(np.asarray(drawn(mode="L", paper=255, ink=0)).astype(np.uint16) * 257),
    ],
    ids=["grey", "alpha", "cmyk", "bits", "palette", "16-bit"],
)
def test_colour_modes(image):
    if image.mode == "P":
        image.putpalette([255, 255, 255, 0, 0, 0])
    expected = see(decode(encoded(drawn())), MNIST)
    for kind in ("TIFF", "JPEG") if image.mode == "CMYK" else ("PNG",):
        seen = see(decode(encoded(image, kind)), MNIST)
        assert np.abs(seen.pixels.astype(int) - expected.pixels).max() < 30


def grey(values, kind, **options):
    """The one channel of a file of these values, as every network sees it."""
    return np.asarray(decode(encoded(Image.fromarray(values), kind, **options)))[..., 0]


def grey_of_pgm(content):
    """A PGM of 4 × 4 pixels of 16 bits, which a folder of images may hold, as every network sees it."""
    with Image.open(io.BytesIO(b"P5 4 4 65535 " + content)) as image:
        return np.asarray(to_rgb(image))


def test_values_of_more_than_8_bits_have_one_white_in_every_image():
    deep = np.arange(256, dtype=np.uint16).repeat(2).reshape(16, 32) * 257
    assert np.array_equal(grey(deep, "PNG"), deep // 257)
    assert np.array_equal(grey(deep, "TIFF"), deep // 257)
    assert grey(np.full((4, 4), 250, np.uint16), "PNG").max() == 1  # dark, whatever its neighbours are
    assert grey(np.full((4, 4), 190, np.uint16), "PNG").max() == 1  # rounded, not cut off
    assert grey_of_pgm(bytes(2 * 16)).max() == 0  # black, of 16 bits
    assert grey_of_pgm(b"\x00\xc8" * 16).max() == 1
    shares = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    assert np.array_equal(grey(shares, "TIFF"), np.arange(256).reshape(16, 16))
    assert np.array_equal(grey(shares * 255, "TIFF"), np.arange(256).reshape(16, 16))


@pytest.mark.parametrize("values", [[0, np.nan], [-0.5, 1], [0, 256], [0, np.inf]])
def test_values_whose_white_nobody_knows_are_refused(values):
    with pytest.raises(ImageError, match=r"^The image has real numbers from .* save it with 8 or 16 bits\.$"):
        grey(np.array([values] * 2, np.float32), "TIFF")
    with pytest.raises(
        ImageError, match="has whole numbers of 32 bits from 0 to 70000 for pixels, and does not say what is white"
    ):
        grey(np.array([[0, 70_000]] * 2, np.int32), "TIFF")


def test_deep_images_are_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert grey(np.zeros((20, 32), np.uint16), "PNG", exif=exif).shape == (32, 20)


def test_progressive_photos_are_read():
    image = drawn()
    assert decode(encoded(image, "JPEG", progressive=True)).size == image.size


def test_photos_are_turned_upright():
    image = drawn()
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90° to look at it
    turned = see(decode(encoded(image, "JPEG", exif=exif, quality=95)), MNIST).pixels
    upright = see(decode(encoded(image.rotate(-90, expand=True), "JPEG", quality=95)), MNIST).pixels
    assert np.abs(turned.astype(int) - upright).max() < 30


def png_header(width, height):
    """A PNG of a few bytes that claims a size."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0), b"IDAT" + zlib.compress(b"\0" * 99)]
    framed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not an image"),
        (b"hello, I am a text file", "not an image"),
        (b"<html><script>alert(1)</script></html>", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image"),
        (encoded(drawn())[:200], "damaged or cut off"),
        (encoded(drawn(), "JPEG")[:400], "damaged or cut off"),
        (png_header(30_000, 30_000), "at most 25 million"),
        (png_header(8_000, 8_000), "at most 25 million"),
        (png_header(1, 70_000), "at most 65535 a side"),
        (b"\0" * (MAX_BYTES + 1), "at most 10 MiB"),
        (encoded(drawn(), "JPEG", progressive=True) + b"\xff\xda" * 100, "at most 100 are read"),
        (encoded(drawn(), "MPO", save_all=True, append_images=[drawn()]) + b"\xff\xda" * 100, "at most 100 are read"),
    ],
    ids=[
        "empty",
        "text",
        "html",
        "postscript",
        "cut png",
        "cut jpeg",
        "bomb",
        "large",
        "tall",
        "heavy",
        "scans",
        "scans of two",
    ],
)
def test_hostile_files_get_a_sentence(content, says):
    with pytest.raises(ImageError, match=says) as error:
        decode(content)
    assert str(error.value).endswith(".")


@pytest.mark.parametrize("size", [(1, 1), (28, 28), (50, 50), (3_000, 1)])
def test_an_empty_image_gets_a_sentence(size):
    with pytest.raises(ImageError, match="Nothing stands out"):
        see(decode(encoded(Image.new("L", size, 255))), MNIST)


def test_a_long_thin_line_still_fits():
    image = Image.new("L", (1_000, 40), 0)
    ImageDraw.Draw(image).line([(10, 20), (990, 20)], fill=255, width=1)
    assert see(decode(encoded(image)), MNIST).pixels.max() > 0


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animation_gives_its_first_frame_and_says_so(kind):
    frames = [drawn(), Image.new("RGB", (300, 200), "white")]
    exact = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **exact)
    moving, still = see(decode(content), MNIST), see(decode(encoded(drawn(), kind, **exact)), MNIST)
    assert np.array_equal(moving.pixels, still.pixels)
    assert "of several frames the first" in moving.steps
    assert "of several frames the first" not in still.steps


def test_a_bomb_of_some_kilobytes_is_refused_before_it_is_unpacked():
    """30 000 × 30 000 pixels that would be 112 MB as bits, real and whole."""
    packer = zlib.compressobj(9)
    rows = b"".join(packer.compress(b"\0" * 3_751 * 1_000) for _ in range(30)) + packer.flush()
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0), b"IDAT" + rows, b"IEND"]
    framed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(framed)
    assert len(content) < 200_000
    with pytest.raises(ImageError, match="at most 25 million"):
        decode(content)


@pytest.mark.parametrize("size", [(1, 1), (16_000_000, 1), (1, 200_000)])
def test_extreme_photos_take_no_more_memory_than_others(size):
    seen = see(Image.new("RGB", size, "lime"), DATASETS["cifar10"])
    assert seen.pixels[:, 16, 16].tolist() == [0, 255, 0]


def test_a_drawing_of_the_browser_is_read_like_an_upload():
    content = encoded(drawn())
    assert from_browser(DATA_URL + base64.b64encode(content).decode()) == content


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (None, "not an image"),
        ({"a": 1}, "not an image"),
        ("", "not an image"),
        ("data:text/html;base64,PGI+", "not an image"),
        ("javascript:alert(1)", "not an image"),
        (DATA_URL + "<b>", "damaged on its way"),
        (DATA_URL + "ö", "damaged on its way"),
        (DATA_URL + "A" * MAX_URL, "at most 2 MiB"),
    ],
)
def test_what_a_browser_sends_is_not_trusted(url, says):
    with pytest.raises(ImageError, match=says):
        from_browser(url)


def test_specks_that_vanish_get_a_sentence():
    image = Image.new("L", (1_200, 1_500), 250)
    for corner in ((0, 0), (1_199, 1_499)):
        image.putpixel(corner, 0)
    with pytest.raises(ImageError, match="too thin for its extent"):
        see(decode(encoded(image)), MNIST)


def test_photos_keep_their_colours_and_their_middle():
    """A wide image, red on the left, green in the middle third, blue on the right: only the middle square is seen."""
    cifar = DATASETS["cifar10"]
    image = Image.new("RGB", (192, 64), "red")
    image.paste("lime", (64, 0, 128, 64))
    image.paste("blue", (128, 0, 192, 64))
    seen = see(decode(encoded(image)), cifar)
    assert seen.pixels.shape == (3, 32, 32)
    assert seen.pixels[:, 16, 16].tolist() == [0, 255, 0]
    assert any("middle square" in step for step in seen.steps)


def test_photos_of_the_right_size_keep_every_pixel():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    seen = see(decode(encoded(Image.fromarray(pixels))), DATASETS["cifar10"])
    assert np.array_equal(seen.pixels, pixels.transpose(2, 0, 1))


def test_garments_fill_the_image():
    seen = see(decode(encoded(drawn())), DATASETS["fashion_mnist"])
    rows = np.flatnonzero(seen.pixels[0].any(1))
    assert rows[-1] - rows[0] >= 26


def test_transparency_is_named():
    assert (
        "what is transparent stands on white"
        in see(decode(encoded(drawn(mode="RGBA", paper=(0, 0, 0, 0)))), MNIST).steps
    )
    shallow, deep = (
        drawn((40, 40), "black", "white", "L"),
        Image.fromarray(np.asarray(drawn((40, 40), "black", "white", "L"), np.uint16) * 257),
    )
    assert np.array_equal(
        *(np.asarray(decode(encoded(one, transparency=0))) for one in (shallow, deep))
    )  # both are white on white
    for opaque in (drawn(), drawn(mode="RGBA", paper=(255, 255, 255, 255), ink=(0, 0, 0, 255))):
        assert "what is transparent stands on white" not in see(decode(encoded(opaque)), MNIST).steps
