"""anytime and at-radius: valid at every look, whatever stops them."""

from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from backend.certification.confidence import looks, lower_bound, radius, radius_upper, upper_bound
from backend.certification.sampler import SMALLEST, Sampler
from backend.certification.smoothed_classifier import SmoothedClassifier
from backend.classifier.weights import build
from backend.datasets import DATASETS
from backend.spec import Certification, SpecError
from backend.training.noise import stream
from tests.certification.test_smoothed_classifier import Linear, finish, smoothed

MODES = ("fixed", "anytime", "at-radius")


@given(st.sampled_from(MODES), st.integers(1, 10**7), st.floats(1e-6, 0.5))
def test_what_the_looks_spend_is_alpha(mode, n, alpha):
    spent = looks(mode, n, alpha)
    assert sum(a for _, a in spent) == pytest.approx(alpha)
    samples = [s for s, _ in spent]
    assert samples == sorted(set(samples))
    assert samples[-1] == n
    assert mode != "fixed" or spent == [(n, alpha)]
    assert mode != "anytime" or spent[-1][1] >= alpha / 2


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_upper_bound_mirrors_the_lower_one(counts):
    k, n = counts
    assert upper_bound(k, n, 0.01) >= k / n
    assert k == n or binom.cdf(k, n, min(1.0, upper_bound(k, n, 0.01))) <= 0.01 * (1 + 1e-6)
    assert radius_upper(upper_bound(k, n, 0.01), 0.5) >= radius(lower_bound(k, n, 0.01), 0.5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("p", [0.5, 0.502, 0.8, 0.99, 0.9999])
def test_coverage_whenever_one_stops(mode, p):
    """2 000 simulated sequences with known p, each stopped at the look that is most in favour of a false claim: a lower
    bound above p, or an upper one below it, at any look, happens to at most α of them within binomial error."""
    alpha, n, times = 0.05, 5_000, 2_000
    rng = np.random.default_rng(round(p * 1e6))
    k, before = np.zeros(times, dtype=int), 0
    false_lower = np.zeros(times, dtype=bool)
    false_upper = np.zeros(times, dtype=bool)
    for samples, spent in looks(mode, n, alpha):
        k += rng.binomial(samples - before, p, size=times)
        before = samples
        bounds = {
            int(v): (lower_bound(int(v), samples, spent), upper_bound(int(v), samples, spent)) for v in np.unique(k)
        }
        false_lower |= np.array([bounds[v][0] > p for v in k.tolist()])
        false_upper |= np.array([bounds[v][1] < p for v in k.tolist()])
    most = times * alpha + 4 * sqrt(times * alpha * (1 - alpha))
    assert false_lower.sum() <= most
    assert false_upper.sum() <= most


@pytest.mark.parametrize("distance", [0.3, 0.5, 0.7])
def test_at_radius_errs_at_most_alpha_times_either_way(distance):
    """Through the whole of the certifier, on a linear classifier whose exact radius is `distance`; the question is 0.5."""
    times, alpha = 1_000, 0.05
    images = torch.full((times, 1, 1, 1), distance)
    found = finish(
        smoothed(Linear([1.0], 0.0)),
        images,
        list(range(times)),
        n0=10,
        n=2_000,
        alpha=alpha,
        mode="at-radius",
        radius=0.5,
    )
    stops = [look.stop for look in found]
    most = times * alpha + 4 * sqrt(times * alpha * (1 - alpha))
    if distance < 0.5:
        assert stops.count("robust") <= most
        assert stops.count("not robust") > times * 0.8
    elif distance > 0.5:
        assert stops.count("not robust") <= most
        assert stops.count("robust") > times * 0.8
    else:
        assert stops.count("robust") <= most
        assert stops.count("undecided") > times * 0.5
    assert all((look.radius >= 0.5) == (look.stop == "robust") for look in found)


def test_at_radius_takes_few_samples_where_it_is_clear():
    (look,) = finish(
        smoothed(Linear([0.0], -1.0)), torch.zeros(1, 1, 1, 1), [0], n=100_000, mode="at-radius", radius=0.5
    )
    assert look.stop == "robust"
    assert look.done < 500


def test_anytime_stops_where_it_was_asked_to():
    g, image = smoothed(Linear([1.0], 0.0)), torch.full((1, 1, 1, 1), 0.5)
    (at_n,) = finish(g, image, [0], n=20_000, mode="anytime")
    (at_radius,) = finish(g, image, [0], n=20_000, mode="anytime", radius=0.4)
    (at_width,) = finish(g, image, [0], n=20_000, mode="anytime", width=0.1)
    (fixed,) = finish(g, image, [0], n=20_000)
    assert (at_n.stop, at_n.done) == ("n", 20_000)
    assert at_radius.stop == "radius"
    assert at_radius.radius >= 0.4
    assert at_radius.done < 20_000
    assert at_width.stop == "width"
    assert at_width.radius_upper - at_width.radius <= 0.1
    assert at_width.radius <= 0.5 <= at_width.radius_upper
    assert at_n.radius == pytest.approx(fixed.radius, rel=0.05)
    k = at_n.counts[1]  # on the same counts, looking often costs little
    assert (
        0.98 * radius(lower_bound(k, 20_000, 0.001), 0.5) <= at_n.radius <= radius(lower_bound(k, 20_000, 0.001), 0.5)
    )


def test_every_look_of_anytime_is_a_certificate_and_none_before_n_of_fixed():
    g, image = smoothed(Linear([1.0], 0.0)), torch.full((1, 1, 1), 0.5)
    anytime = list(g.watch(image, Certification(n=5_000, mode="anytime")))
    assert all(look.certified for look in anytime)
    assert all(look.radius <= 0.5 for look in anytime)
    fixed = list(g.watch(image, Certification(n=5_000)))
    assert [look.certified for look in fixed] == [False] * (len(fixed) - 1) + [True]


@pytest.mark.parametrize("mode", [{"mode": "anytime", "width": 0.2}, {"mode": "at-radius", "radius": 0.5}])
def test_counts_do_not_depend_on_company(mode):
    """Images that finish at different times, and are replaced by others, vote as they would alone."""
    torch.manual_seed(0)
    images = torch.rand(9, 1, 2, 2)
    g = smoothed(Linear([1.0] * 4, 2.0))
    together = finish(g, images, list(range(9)), n=3_000, **mode)
    alone = [finish(g, images[i : i + 1], [i], n=3_000, **mode)[0] for i in range(9)]
    assert together == alone
    assert len({look.done for look in together}) > 2


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"mode": "sometimes"}, "mode must be one of fixed, anytime, at-radius"),
        ({"mode": "at-radius"}, "wants a radius"),
        ({"radius": 0.5}, "certification with a radius must be one of anytime, at-radius, not 'fixed'"),
        ({"mode": "at-radius", "radius": 0.5, "width": 0.1}, "certification with a width must be one of anytime"),
        ({"mode": "anytime", "width": 0.0}, "width must be"),
        ({"mode": "at-radius", "radius": float("nan")}, "radius must be"),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(SpecError, match=says):
        Certification(**settings)


def test_not_robust_holds_for_the_smoothed_classifier_also_where_another_class_was_selected():
    """p_A = 0.6 at the true top class, so that few n0 samples often select the other: its radius 0.2533 is above 0.25."""
    distance, times, alpha = 0.2533, 400, 0.01
    images = torch.full((times, 1, 1, 1), distance)
    g = smoothed(Linear([1.0], 0.0), sigma=1.0)
    found = finish(g, images, list(range(times)), n0=3, n=20_000, alpha=alpha, mode="at-radius", radius=0.25)
    assert sum(look.top == 0 for look in found) > times / 5
    stops = [look.stop for look in found]
    assert stops.count("not robust") <= times * alpha + 4 * sqrt(times * alpha)


def test_float_sound_images_that_finish_at_different_times():
    images = torch.rand(9, 1, 2, 2).mul(255).round().div(255)
    g = SmoothedClassifier(Linear([1.0] * 4, 2.0), 2, 0.5, torch.device("cpu"), 0, grid=255)
    found = finish(g, images, list(range(9)), n=3_000, mode="at-radius", radius=0.3, float_sound=True)
    assert len({look.done for look in found}) > 1
    assert all((look.radius >= 0.3) == (look.stop == "robust") for look in found)


def test_a_tail_of_one_sample_votes_as_in_company():
    torch.manual_seed(0)
    network = build("resnet20", DATASETS["mnist"], torch.device("cpu")).eval()
    images = torch.rand(3, 1, 28, 28)
    s, sizes = Sampler(network, 10, 0.5, torch.device("cpu")), []
    s.classifier.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    together = s.count(images, [65, 33, 1], [stream(i, "test", 0, s.device) for i in range(3)])
    assert together == [
        s.count(images[i : i + 1], [n], [stream(i, "test", 0, s.device)])[0] for i, n in enumerate((65, 33, 1))
    ]
    assert min(sizes) == SMALLEST  # where a smaller pass would take another kernel, and vote otherwise
