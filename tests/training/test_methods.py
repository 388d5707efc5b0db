from dataclasses import fields, replace
from math import exp, isfinite, log

import pytest
import torch
from scipy.stats import norm
from torch import nn

from backend.plan import plan
from backend.recipes import departures
from backend.spec import RunSpec
from backend.training.methods import METHODS, Batch, make
from backend.training.methods.consistency import consistency_terms
from backend.training.methods.macer import macer_terms
from backend.training.methods.smoothmix import mixed_term
from tests.training import kl, logits_of


class Doubling(nn.Module):
    """Logits are twice the two pixels."""

    def forward(self, x):
        return 2 * x.flatten(1)


def test_loss_terms_see_image_plus_noise():
    x, y = torch.tensor([[[[0.0, 0.5]]]]), torch.tensor([1])
    noise = torch.tensor([[[[[0.0, 0.0]]]], [[[[0.5, -0.5]]]]])  # (2, 1, 1, 1, 2)
    batch = Batch(x, y, noise, 0.5, 0, torch.Generator())
    logits, terms = make("consistency", {"lam": 1.0, "form": "mse"}).loss_terms(Doubling(), batch)
    assert logits.tolist() == [[[0.0, 1.0]], [[1.0, 0.0]]]
    first, second = log(1 + torch.e**-1), log(1 + torch.e)  # CE of (0, 1) and (1, 0) at label 1
    assert float(terms["cross_entropy"]) == pytest.approx((first + second) / 2)
    logits, terms = make("gaussian", {}).loss_terms(Doubling(), replace(batch, noise=noise[:1]))
    assert float(terms["cross_entropy"]) == pytest.approx(first)


def test_chunks_and_noises():
    assert (make("gaussian", {}).chunks, make("gaussian", {}).noises) == (1, 1)
    assert (make("consistency", {"m": 4}).chunks, make("consistency", {"m": 4}).noises) == (4, 4)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_planned(name):
    spec = plan("digits", name, 0.5)
    assert set(spec.hyper) == {f.name for f in fields(METHODS[name])}
    assert RunSpec.from_json(spec.to_json()) == spec
    assert METHODS[name].__doc__
    assert METHODS[name].paper


class Table(nn.Module):
    """Logits are the pixels: what a test writes into the image is what the loss sees."""

    def forward(self, x):
        return x.flatten(1)


def batch_of(x, y, noise=None, sigma=0.5, epoch=0):
    """A Batch of images (B, K) and labels, m noise vectors (m, B, K) or one of zeros."""
    x = torch.tensor(x, dtype=torch.float64)
    noise = torch.zeros(1, *x.shape) if noise is None else torch.tensor(noise, dtype=torch.float64)
    noise = noise.to(x)[:, :, None, None]
    generator = torch.Generator().manual_seed(0)
    return Batch(x[:, None, None], torch.tensor(y), noise, sigma, epoch, generator)


@pytest.fixture
def doubles(monkeypatch):
    """Logits stay in float64, for closed forms to twelve digits."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


def softmax(z):
    shifted = [exp(v - max(z)) for v in z]
    return [v / sum(shifted) for v in shifted]


def test_stability_by_hand(doubles):
    x, d = [[0.3, -0.2, 0.1]], [[[0.5, 0.4, -1.0]]]
    clean, noisy = softmax(x[0]), softmax([a + b for a, b in zip(x[0], d[0][0], strict=True)])
    logits, terms = make("stability", {"lam": 3.0}).loss_terms(Table(), batch_of(x, [2], d))
    assert float(terms["cross_entropy"]) == pytest.approx(-log(clean[2]))
    cross = -sum(p * log(q) for p, q in zip(clean, noisy, strict=True))
    assert float(terms["stability"]) == pytest.approx(3 * cross)
    assert logits.shape == (1, 1, 3)


def macer_by_hand(outputs, y, sigma, lam, beta, gamma):
    """One image of m outputs: MACER's loss, by scipy."""
    m = len(outputs)
    p = sum(softmax(z)[y] for z in outputs) / m
    g = [sum(softmax([beta * v for v in z])[c] for z in outputs) / m for c in range(len(outputs[0]))]
    first, second = sorted(g)[::-1][:2]
    xi = norm.ppf(first) - norm.ppf(second)
    robust = sigma / 2 * (gamma - xi) if g.index(first) == y and isfinite(xi) and xi <= gamma else 0.0
    return -log(p + 1e-10), lam * robust


@pytest.mark.parametrize(
    ("outputs", "y"),
    [
        ([[0.4, 0.1, 0.0], [0.1, 0.2, 0.0]], 0),
        ([[0.4, 0.1, 0.0], [0.1, 0.2, 0.0]], 1),  # wrong: no robust term
        ([[2.0, 0.1, 0.0], [2.0, 0.2, 0.0]], 0),  # certain: ξ beyond γ
        ([[90.0, 0.0, 0.0], [90.0, 0.0, 0.0]], 0),  # Φ⁻¹(1): infinite
    ],
)
def test_macer_by_hand(outputs, y):
    logits = torch.tensor(outputs, dtype=torch.float64)[:, None].requires_grad_()
    terms = macer_terms(logits, torch.tensor([y]), 0.5, 16.0, 16.0, 8.0)
    expected = macer_by_hand(outputs, y, 0.5, 16.0, 16.0, 8.0)
    assert [float(terms[name].detach()) for name in ("classification", "robustness")] == pytest.approx(expected)
    sum(terms.values()).backward()
    assert logits.grad.isfinite().all()


def test_macers_robust_set():
    """Outside it the term is zero, and so is its gradient: wrong, too robust, saturated; inside it is not."""
    outputs = [[0.4, 0.1], [0.1, 0.4], [3.0, 0.0], [500.0, -500.0]]
    logits = torch.tensor(outputs)[None].requires_grad_()
    macer_terms(logits, torch.zeros(4, dtype=torch.int64), 0.5, 1.0, 16.0, 8.0)["robustness"].backward()
    assert [bool(row.abs().sum() > 0) for row in logits.grad[0]] == [True, False, False, False]
    assert logits.grad.isfinite().all()


def test_macer_is_averaged_over_the_whole_batch():
    logits = torch.tensor([[[0.4, 0.1], [0.1, 0.4]]])
    both = macer_terms(logits, torch.tensor([0, 0]), 0.5, 1.0, 16.0, 8.0)["robustness"]
    one = macer_terms(logits[:, :1], torch.tensor([0]), 0.5, 1.0, 16.0, 8.0)["robustness"]
    assert float(both) == pytest.approx(float(one) / 2)


@pytest.mark.parametrize(("name", "m"), [("macer", 1), ("macer_consistency", 2)])
def test_macer_is_deferred(name, m):
    macer = make(name, {"m": m, "deferred": 3})
    robust = [
        float(macer.loss_terms(Table(), batch_of([[0.4, 0.1]], [0], [[[0, 0]]] * m, epoch=e))[1]["robustness"])
        for e in (0, 2, 3)
    ]
    assert robust[:2] == [0.0, 0.0]
    assert robust[2] > 0


def test_smoothmix_by_hand():
    """F̂ = (3/4, 1/4), t = 1/2: the target is (5/8, 3/8)."""
    logits, mixed = logits_of((0.75, 0.25)), logits_of((0.25, 0.75))
    t = torch.tensor([[0.5]], dtype=torch.float64)
    term = mixed_term(logits, mixed, torch.tensor([0]), t)
    assert float(term) == pytest.approx(kl((0.625, 0.375), (0.25, 0.75)))
    assert float(mixed_term(logits, mixed, torch.tensor([1]), t)) == 0  # F̂ is wrong
    certain = torch.tensor([[[200.0, 0.0]]], requires_grad=True)  # a float holds no F̂ of class 1, and t may be 0
    mixed_term(certain, mixed, torch.tensor([0]), torch.zeros(1, 1)).backward()
    assert certain.grad.isfinite().all()


def test_smoothmix_mixes_towards_the_attack():
    """Logits are pixels: the ascent lowers the label's; with mix_step 0 the clean side is x itself."""
    batch = batch_of([[0.5, 0.5]], [0], sigma=0.1, epoch=99)
    logits, terms = make("smoothmix", {"m": 1, "steps": 1, "step": 0.5}).loss_terms(Table(), batch)
    assert logits.flatten().tolist() == pytest.approx([0.5, 0.5])
    assert float(terms["cross_entropy"]) == pytest.approx(log(2))
    t = float(torch.rand((1, 1), generator=_after_one_direction()) / 2)
    step = 0.5 / 2**0.5
    moved = softmax([0.5 - t * step, 0.5 + t * step])
    assert float(terms["mixed"]) == pytest.approx(5 * kl((0.5, 0.5), moved), rel=1e-4)


def test_smoothmix_from_the_first_iterate():
    """mix_step 1, half-way through warm-up: x⁰ is half a step down the first direction, and the mixed term counts half."""
    values = {"m": 1, "steps": 1, "step": 0.4, "mix_step": 1, "warmup": 4}
    logits, terms = make("smoothmix", values).loss_terms(Table(), batch_of([[0.5, 0.5]], [1], sigma=0.1, epoch=1))
    step = 0.4 / 2**0.5
    clean = [0.5 + step / 2, 0.5 - step / 2]  # the label's pixel goes down
    assert logits.flatten().tolist() == pytest.approx(clean)
    assert float(terms["mixed"]) == 0  # F̂(x⁰) is wrong there
    logits, terms = make("smoothmix", values).loss_terms(Table(), batch_of([[0.2, 0.8]], [1], sigma=0.1, epoch=1))
    t = float(torch.rand((1, 1), generator=_after_one_direction()) / 2)
    clean = [0.2 + step / 2, 0.8 - step / 2]
    mixed = [c + t * (x - c) for c, x in zip(clean, (0.2 + step, 0.8 - step), strict=True)]
    target = [(1 - t) * p + t / 2 for p in softmax(clean)]
    assert float(terms["mixed"]) == pytest.approx(
        0.5 * 5 * kl(target, softmax(mixed)), rel=0.02
    )  # of a KL of 1e-5, in float32


def _after_one_direction():
    generator = torch.Generator().manual_seed(0)
    torch.randn((1, 1, 1, 2), generator=generator)
    return generator


def test_smoothadv_trains_on_the_attacked_image():
    """Logits are pixels: PGD lowers the label's pixel and raises the other by ε/√2; ε is half-way through its warm-up."""
    batch = batch_of([[0.5, 0.5]], [0], noise=[[[0.1, 0.0]], [[0.0, 0.0]]], epoch=1)
    adv = make("smoothadv", {"m": 2, "steps": 1, "epsilon": 0.4, "warmup": 4})
    logits, terms = adv.loss_terms(Table(), batch)
    moved = [0.5 - 0.2 / 2**0.5, 0.5 + 0.2 / 2**0.5]
    assert logits[1].flatten().tolist() == pytest.approx(moved)
    assert logits[0].flatten().tolist() == pytest.approx([moved[0] + 0.1, moved[1]])
    expected = -sum(log(softmax(row.flatten().tolist())[0]) for row in logits) / 2
    assert float(terms["cross_entropy"]) == pytest.approx(expected)


@pytest.mark.parametrize("name", [name for name in METHODS if name.endswith("_consistency")])
def test_compositions_are_the_base_loss_and_l_con(name):
    """Over Stability, SmoothAdv and MACER: the base method's terms, unchanged, and L_con of the same logits."""
    base = name.removesuffix("_consistency")
    values = {"m": 2, "deferred": 0, "steps": 2, "epsilon": 0.1}
    x, noise = [[0.5, 0.4], [0.2, 0.1]], [[[0.1, 0.0], [0.0, 0.2]], [[0.0, 0.3], [0.1, 0.0]]]

    def run(method, extra):
        known = {k: v for k, v in (values | extra).items() if k in METHODS[method].__dataclass_fields__}
        return make(method, known).loss_terms(Table(), batch_of(x, [0, 1], noise))

    logits, terms = run(name, {"lam": 7.0, "eta": 0.5})
    plain, base_terms = run(base, {})
    assert torch.equal(logits, plain)
    assert {k: float(v) for k, v in terms.items()} == pytest.approx(
        {k: float(v) for k, v in (base_terms | consistency_terms(logits, "default", 7.0, 0.5)).items()}
    )


@pytest.mark.parametrize("name", METHODS)
def test_gradients_of_every_loss_by_finite_differences(name, doubles):
    """Of the loss by the weights of a linear network, in float64; attacks are off: they are constants of the step."""
    torch.manual_seed(0)
    values = {"m": 2, "deferred": 0, "steps": 1, "epsilon": 0.001, "step": 0.001}
    method = make(name, {k: v for k, v in values.items() if k in METHODS[name].__dataclass_fields__})
    x, noise = torch.rand(3, 4), 0.2 * torch.randn(method.noises, 3, 4)
    weight = torch.randn(3, 4, dtype=torch.float64)

    def loss(w):
        class Linear(nn.Module):
            def forward(self, x):
                return x.flatten(1) @ w.T

        attacked = batch_of(x.tolist(), [0, 1, 2], noise.tolist(), epoch=99)
        with pytest.MonkeyPatch.context() as patch:  # the same x' whatever w
            patch.setattr("backend.training.attack.pgd", lambda c, x, *_: x)
            patch.setattr("backend.training.attack.ascent", lambda c, x, *_: [0.9 * x])
            return sum(method.loss_terms(Linear(), attacked)[1].values())

    assert torch.autograd.gradcheck(loss, weight.requires_grad_())


def test_hyper_parameters_in_epochs_shrink_with_a_short_training():
    assert plan("mnist", "smoothadv", 0.5, recipe="paper").hyper["warmup"] == 10
    assert plan("mnist", "smoothadv", 0.5).hyper["warmup"] == 1  # 8 epochs of 90
    assert plan("mnist", "macer", 0.5, recipe="paper").hyper["deferred"] == 31  # λ = 0 through epoch index 30
    assert plan("mnist", "macer", 0.5).hyper["deferred"] == 3
    assert plan("mnist", "macer", 0.5, values={"deferred": 5}).hyper["deferred"] == 5
    for dataset, sigma in METHODS["macer"].paper_values:  # with Consistency the term alone is added
        alone, both = (plan(dataset, name, sigma, recipe="paper").hyper for name in ("macer", "macer_consistency"))
        assert {
            ("lam_macer" if name == "lam" else name): value for name, value in alone.items()
        }.items() <= both.items()


def test_the_quick_recipe_says_where_it_departs_from_the_paper():
    quick = plan("mnist", "macer", 0.5).hyper
    assert (quick["lam"], quick["m"], quick["deferred"]) == (1.0, 4, 3)
    assert plan("mnist", "macer", 0.5, recipe="paper").hyper["lam"] == 16.0
    assert departures("macer", "mnist", 0.5, quick) == {"lam": (1.0, 16.0), "m": (4, 16), "deferred": (3, 31)}
    assert departures("consistency", "mnist", 0.5, plan("mnist", "consistency", 0.5).hyper) == {}
    assert departures("catrs", "mnist", 0.5, {}) == {}
    assert departures("stability_consistency", "mnist", 0.5, {"lam": 2.0}) == {}  # no paper has it
    assert plan("cifar10", "macer", 0.5, recipe="paper").hyper["deferred"] == 0  # deferral is MNIST's


def test_the_papers_values():
    paper = {
        ("stability", 0.25): {"lam": 2}, ("smoothadv", 1.0): {"epsilon": 255 / 256, "m": 4, "steps": 10, "warmup": 10},
        ("macer", 0.5): {"lam": 16, "m": 16, "beta": 16, "gamma": 8}, ("macer", 1.0): {"lam": 6},
        ("consistency", 0.25): {"lam": 10, "m": 2, "eta": 0.5}, ("consistency", 1.0): {"lam": 5},
        ("smoothadv_consistency", 0.5): {"lam": 1, "m": 4, "epsilon": 255 / 256, "eta": 0.5, "steps": 10},
    }  # fmt: skip
    for (method, sigma), values in paper.items():
        hyper = plan("mnist", method, sigma, recipe="paper").hyper
        assert {name: hyper[name] for name in values} == values
    recipe = plan("cifar10", "gaussian", 0.5, recipe="paper").recipe
    assert (recipe.epochs, recipe.lr, recipe.drop_every, recipe.schedule) == (150, 0.1, 50, "step")
