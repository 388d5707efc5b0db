import numpy as np
import pytest

from backend.ball import grey_levels, moved, random_direction, whole_pixels


@pytest.mark.parametrize(
    ("radius", "channels", "pixels"),
    [(0.0, 1, 0), (0.99, 1, 0), (1.0, 1, 0), (1.01, 1, 1), (1.5, 1, 2), (2.0, 1, 3), (2.0, 3, 1), (1.7, 3, 0)],
)
def test_pixels_from_black_to_white(radius, channels, pixels):
    """k of them have the norm sqrt(k · channels), which must lie below the radius."""
    assert whole_pixels(radius, channels) == pixels
    assert pixels == 0 or (pixels * channels) ** 0.5 < radius
    assert ((pixels + 1) * channels) ** 0.5 >= radius


def test_levels_and_images_have_the_norm_of_the_radius():
    level = grey_levels(1.2, 784)
    assert np.linalg.norm(np.full(784, level / 255)) == pytest.approx(1.2)
    direction = random_direction((1, 28, 28), 0)
    grey = np.full((1, 28, 28), 128, np.uint8)
    image, clipped = moved(grey, 255, direction * 7, 1.2)
    assert clipped == 0
    assert np.linalg.norm((image.astype(float) - grey) / 255) == pytest.approx(1.2, rel=0.01)
    image, clipped = moved(np.zeros((1, 28, 28), np.uint8), 255, direction, 1.2)
    assert clipped == pytest.approx(0.5, abs=0.1)
    assert image.max() <= 255
