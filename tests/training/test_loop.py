import subprocess
import sys
import threading
from dataclasses import replace
from math import isfinite

import pytest
import safetensors.torch
import torch

from backend.classifier.weights import build
from backend.datasets import DATASETS
from backend.home import CHECKOUT
from backend.pipeline import choose_device
from backend.plan import plan
from backend.rows import Checkpoint, Epoch
from backend.spec import RECIPES, Recipe
from backend.training.loop import Tally, TrainingError, learning_rate, restore, snapshot, train
from backend.training.methods import METHODS, make
from backend.training.sgd import SGD
from tests.devices import on_each_device

DIGITS = DATASETS["digits"]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def rows_of(spec, checkpoint=None):
    return list(train(spec, DIGITS, choose_device("cpu"), checkpoint))


def weights(rows):
    return next(row.tensors for row in rows if isinstance(row, Checkpoint) and row.final)


@pytest.mark.parametrize(
    ("method", "values", "steps"),
    [
        ("gaussian", {}, 6),
        ("stability", {}, 6),
        ("consistency", {"m": 2}, 12),
        ("consistency", {"m": 4}, 24),
        ("smoothadv", {"m": 2, "steps": 1}, 12),
        ("smoothadv_consistency", {"m": 4, "steps": 1}, 24),
        ("smoothmix", {"m": 2, "steps": 1}, 12),
    ],
)
def test_m_steps_per_loaded_batch(method, values, steps, digits_spec, monkeypatch):
    """1 347 images are 6 batches of 256 (the last of 67), each split into m chunks of 1/m of the images."""
    seen, original = [], METHODS[method].loss_terms

    def loss_terms(self, classifier, batch):
        seen.append((len(batch.x), len(batch.noise)))
        return original(self, classifier, batch)

    monkeypatch.setattr(METHODS[method], "loss_terms", loss_terms)
    rows_of(digits_spec(method, epochs=1, values=values))
    assert len(seen) == steps
    m = values.get("m", 1)
    assert seen[0] == (256 // m, m)
    assert sum(size for size, _ in seen) == 1_347


def test_every_epoch_has_an_order_and_noise_of_its_own(digits_spec, monkeypatch):
    first, original = {}, METHODS["gaussian"].loss_terms

    def loss_terms(self, classifier, batch):
        first.setdefault(batch.epoch, (batch.y.clone(), batch.noise.clone()))
        return original(self, classifier, batch)

    monkeypatch.setattr(METHODS["gaussian"], "loss_terms", loss_terms)
    rows_of(digits_spec(epochs=2))
    (order, noise), (another, other) = first[0], first[1]
    assert not torch.equal(order, another)
    assert abs(torch.corrcoef(torch.stack([noise.flatten(), other.flatten()]))[0, 1]) < 0.05


def test_macer_does_not_split_a_batch():
    macer = make("macer", {})
    assert (macer.chunks, macer.noises) == (1, 16)


def test_weights_are_rounded_before_they_are_handed_on(digits_spec):
    tensors = safetensors.torch.load(weights(rows_of(digits_spec(weights_dtype="float16"))))
    assert {value.dtype for value in tensors.values()} == {torch.float16}


def test_terms_add_up_to_the_loss(digits_spec):
    for row in rows_of(digits_spec("consistency")):
        if isinstance(row, Epoch):
            assert sum(row.terms.values()) == pytest.approx(row.loss)
            assert set(row.terms) == {"cross_entropy", "consistency", "entropy"}
            assert isfinite(row.loss)


def test_a_loss_that_is_not_finite_stops_the_run(digits_spec):
    spec = replace(digits_spec(), recipe=Recipe(lr=1000.0, weight_decay=1000.0, epochs=3))
    with pytest.raises(
        TrainingError, match=r"the loss of batch \d of epoch 1 is not finite; lower the learning rate \(1000\)"
    ):
        rows_of(spec)


def test_learning_rate_of_the_paper():
    paper = RECIPES["paper"]
    assert [learning_rate(paper, e) for e in (0.5, 29.9, 30.0, 59.9, 60.0, 89.9)] == pytest.approx(
        [0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001]
    )


def test_learning_rate_of_quick():
    quick = RECIPES["quick"]
    assert learning_rate(quick, quick.warmup / 2) == pytest.approx(quick.lr / 2)
    assert learning_rate(quick, quick.warmup) == pytest.approx(quick.lr)
    assert learning_rate(quick, (quick.epochs + quick.warmup) / 2) == pytest.approx(quick.lr / 2)
    assert learning_rate(quick, quick.epochs) == pytest.approx(0, abs=1e-12)


def test_the_batch_of_the_first_loss_that_is_not_finite():
    tally = Tally(2, torch.device("cpu"))
    for step in range(10):
        loss = torch.tensor(float("nan") if step in (5, 8) else 1.0)
        tally.add(torch.zeros(1, 4, 2), torch.zeros(4, dtype=torch.int64), loss, {"loss": loss})
    spec = plan("digits", "consistency", 0.5)
    with pytest.raises(TrainingError, match=r"batch 3 of epoch 7 is not finite.*lam = 5\.0"):
        tally.check(6, 2, spec)  # two steps a batch: step 5 is of batch 3


def test_collapse_is_counted():
    """All answers are class 0 or 1, where the labels are evenly of four: two classes are missing."""
    tally, labels = Tally(4, torch.device("cpu")), torch.arange(400) % 4
    logits = torch.nn.functional.one_hot(labels % 2, 4)[None].float()
    tally.add(logits, labels, torch.tensor(1.0), {})
    assert tally.missing_classes(labels) == 2
    assert float(tally.correct) == 200


def test_a_class_that_is_hardly_ever_answered_is_missing():
    """Of four classes, a quarter of the labels each, one has 2 % of the answers, less than a tenth of its share, one 3 %."""
    tally, labels = Tally(4, torch.device("cpu")), torch.arange(400) % 4
    answers = torch.tensor([0] * 190 + [1] * 190 + [2] * 8 + [3] * 12)
    tally.add(torch.nn.functional.one_hot(answers, 4)[None].float(), labels, torch.tensor(1.0), {})
    assert tally.missing_classes(labels) == 1


def test_a_large_lambda_collapses_and_is_reported(digits_spec):
    """λ = 100 with η = 0 wants equal answers above all: the network ends up with few of them."""
    spec = digits_spec("consistency", epochs=3, values={"lam": 100.0, "eta": 0.0})
    epochs = [row for row in rows_of(spec) if isinstance(row, Epoch)]
    assert epochs[-1].missing_classes > 0
    spec = digits_spec("consistency", epochs=20, sigma=0.25)
    assert [row for row in rows_of(spec) if isinstance(row, Epoch)][-1].missing_classes == 0


def test_macer_with_16_noise_vectors_at_batch_256_fits_two_gigabytes():
    """LeNet on 28×28 images; the most that a fresh process ever held, torch itself included.

    Not getrusage: what the parent held before the fork counts there.
    """
    code = (
        "import re, torch\n"
        "from backend.classifier.architectures import ARCHITECTURES\n"
        "from backend.training.methods import Batch, make\n"
        "from backend.training.noise import gaussian\n"
        "net = ARCHITECTURES['lenet']((1, 28, 28), 10).to(memory_format=torch.channels_last)\n"
        "g = torch.Generator().manual_seed(0)\n"
        "for _ in range(2):\n"
        "    x, y = torch.rand(256, 1, 28, 28), torch.arange(256) % 10\n"
        "    batch = Batch(x, y, gaussian(16, x, 0.5, g), 0.5, 99, g)\n"
        "    sum(make('macer', {}).loss_terms(net, batch)[1].values()).backward()\n"
        "print(int(re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1]) // 1024)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=CHECKOUT, check=True)
    assert int(out.stdout) < 2048


@on_each_device
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_are_torchs_to_the_bit(momentum, device):
    """Against torch.optim.SGD, over epochs that a checkpoint parts."""
    recipe = replace(RECIPES["quick"], momentum=momentum, weight_decay=0.01)
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(5, 3, device=device), torch.nn.Linear(5, 3, device=device)
    theirs.load_state_dict(ours.state_dict())
    optimiser = SGD(ours, recipe)
    reference = torch.optim.SGD(theirs.parameters(), 1.0, momentum, weight_decay=0.01, fused=True)
    for step in range(6):
        if step == 3:
            checkpoint = snapshot(1, ours, optimiser)
            ours = torch.nn.Linear(5, 3, device=device)
            optimiser = SGD(ours, recipe)
            assert restore(checkpoint, ours, optimiser) == 1
        x, lr = torch.rand(4, 5, device=device), 0.1 / (step + 1)
        optimiser.step(ours(x).square().sum(), lr)
        reference.param_groups[0]["lr"] = lr
        reference.zero_grad()
        theirs(x).square().sum().backward()
        reference.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_a_network_that_is_opened_meanwhile_changes_no_training(digits_spec):
    """Both draw initial weights from the one global stream of the process."""
    spec = digits_spec(epochs=1)
    alone = rows_of(spec)[-1].tensors
    over = threading.Event()

    def others():
        while not over.is_set():
            build("smallcnn", DIGITS, choose_device("cpu"))

    thread = threading.Thread(target=others)
    thread.start()
    try:
        assert [rows_of(spec)[-1].tensors == alone for _ in range(4)] == [True] * 4
    finally:
        over.set()
        thread.join()
