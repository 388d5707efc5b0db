"""Training images per second against a plain loop: LeNet on MNIST, Gaussian and Consistency with m = 2.

The plain loop is written here as papers' code is: a DataLoader with workers, PIL and ToTensor per image, the default
memory layout, noise per chunk, a KL term from library calls, `.item()` after every step. Both draw from the same seed and
compute the same loss, with the same SGD; "bfloat16" is ours under autocast. Rounds alternate in one process; then two
single-threaded processes run at once.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from math import log

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

from backend.classifier.architectures import ARCHITECTURES
from backend.classifier.weights import layout
from backend.datasets import Split, find_dataset
from backend.home import data_root
from backend.pipeline import choose_device
from backend.plan import plan
from backend.rows import Epoch
from backend.training.loop import train
from backend.training.methods import Batch, make

SIGMA, LAM, ETA, BATCH, WORKERS = 0.5, 5.0, 0.5, 256, 2
METHODS = {"gaussian": 1, "consistency": 2}  # and their m


def plain_loss(network, x, y, noise, method: str) -> torch.Tensor:
    """The loss of one chunk, with noise (m, B, C, H, W)."""
    m = len(noise)
    outputs = network(torch.cat([x + d for d in noise]))
    loss = functional.cross_entropy(outputs, y.repeat(m))
    if method == "consistency":
        predictions = [functional.softmax(o, dim=1) for o in outputs.chunk(m)]
        mean = sum(predictions) / m
        divergence = [
            functional.kl_div(functional.log_softmax(o, dim=1), mean, reduction="none").sum(1) for o in outputs.chunk(m)
        ]
        entropy = -(mean * mean.clamp(min=1e-20).log()).sum(1)
        loss = loss + (LAM * sum(divergence) / m + ETA * entropy).mean()
    return loss


def plain(method: str, images: int, device: torch.device) -> float:
    """One epoch of the plain loop: images per second. Workers are started before the clock."""
    m = METHODS[method]
    torch.manual_seed(0)
    network = ARCHITECTURES["lenet"]((1, 28, 28), 10).to(device).train()
    optimiser = torch.optim.SGD(network.parameters(), 0.01, 0.9, weight_decay=1e-4)
    data = Subset(MNIST(data_root(), train=True, transform=ToTensor()), range(images))
    loader = iter(DataLoader(data, BATCH, shuffle=True, num_workers=WORKERS))
    start, total = time.perf_counter(), 0.0
    for loaded in loader:
        for x, y in zip(*(part.chunk(m) for part in loaded), strict=True):
            on_device = x.to(device)
            noise = torch.stack([torch.randn_like(on_device) * SIGMA for _ in range(m)])
            loss = plain_loss(network, on_device, y.to(device), noise, method)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item()
    return images / (time.perf_counter() - start)


def ours(method: str, images: int, device: torch.device, precision: str = "float32") -> float:
    """One epoch of the product's loop: images per second."""
    mnist = find_dataset("mnist")
    split = mnist.load(train=True)
    some = replace(mnist, read=lambda _: Split(split.images[:images], split.labels[:images]))
    values = {"lam": LAM, "eta": ETA, "m": 2} if method == "consistency" else {}
    spec = plan("mnist", method, SIGMA, values=values, recipe="paper", epochs=1, train_precision=precision)
    return next(row.images_per_second for row in train(spec, some, device) if isinstance(row, Epoch))


LOOPS = {"plain": plain, "ours": ours, "bfloat16": partial(ours, precision="bfloat16")}


def gradient_errors(method: str, device: torch.device) -> dict[str, float]:
    """Of the first step, by both ways: largest difference to float64, as a share of the largest gradient."""
    m = METHODS[method]
    split = find_dataset("mnist").load(train=True)
    x, y = (
        torch.from_numpy(split.images[:128]).to(device).float() / 255,
        torch.from_numpy(split.labels[:128]).to(device),
    )
    torch.manual_seed(0)
    network = ARCHITECTURES["lenet"]((1, 28, 28), 10).to(device)
    noise = torch.randn(m, *x.shape, device=device) * SIGMA

    def gradients(loss: torch.Tensor, of: nn.Module) -> torch.Tensor:
        return torch.cat([g.flatten().double() for g in torch.autograd.grad(loss, list(of.parameters()))])

    exact = ARCHITECTURES["lenet"]((1, 28, 28), 10).to(device).double()
    exact.load_state_dict(network.state_dict())
    outputs = exact((x.double() + noise.double()).flatten(0, 1)).unflatten(0, (m, -1)).log_softmax(-1)  # (m, B, K)
    loss = -outputs.gather(2, y.expand(m, -1)[..., None]).mean()
    if method == "consistency":
        log_mean = outputs.logsumexp(0) - log(m)
        entropy = -(log_mean.exp() * log_mean).sum(1)
        cross = -(log_mean.exp() * outputs.mean(0)).sum(1)
        loss = loss + (LAM * (cross - entropy) + ETA * entropy).mean()
    reference = gradients(loss, exact)
    found = {"plain": gradients(plain_loss(network, x, y, noise, method), network)}
    network = network.to(memory_format=layout(device, "float32"))
    made = make(method, {"lam": LAM, "eta": ETA, "m": m} if method == "consistency" else {})
    _, terms = made.loss_terms(network, Batch(x, y, noise, SIGMA, 0, torch.Generator(device)))
    found["ours"] = gradients(sum(terms.values()), network)
    return {name: float((g - reference).abs().max() / reference.abs().max()) for name, g in found.items()}


def at_once(loop: str, method: str, images: int) -> float:
    """Images per second of two single-threaded processes together."""
    command = [sys.executable, "-m", "scripts.benchmarks.train", "--one", loop, method, str(images)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    return sum(float(process.communicate()[0]) for process in running)


def compare(method: str, images: int, rounds: int, device: torch.device) -> dict[str, float]:
    """Medians of alternating rounds, printed, and their ratios."""
    rates = {(loop, where): [] for where in ("one run", "two processes") for loop in LOOPS}
    for _ in range(rounds):
        for loop, run in LOOPS.items():
            rates[loop, "one run"].append(run(method, images, device))
        if device.type == "cpu":
            for loop in LOOPS:
                rates[loop, "two processes"].append(at_once(loop, method, images))
    print(
        f"{method} on {device.type}, {images} images an epoch, {rounds} rounds, one run on {torch.get_num_threads()} threads"
    )
    medians = {key: statistics.median(values) for key, values in rates.items() if values}
    for (loop, where), median in medians.items():
        spread = f"{min(rates[loop, where]):,.0f} to {max(rates[loop, where]):,.0f}"
        print(
            f"  {loop:<8} {where:<14} {median:>10,.0f} images/s ({spread})  {median / medians['plain', 'one run']:.2f} × plain"
        )
    errors = gradient_errors(method, device)
    print("  first step's gradients against float64: " + ", ".join(f"{k} {v:.1e}" for k, v in errors.items()))
    name, base = f"{method}_{device.type}", medians["plain", "one run"]
    result = {f"{name}_ratio": medians["ours", "one run"] / base, f"{name}_rate": medians["ours", "one run"]}
    result |= {f"{name}_gradient_error": errors["ours"]}
    result |= {f"{name}_ratio_bfloat16": medians["bfloat16", "one run"] / base}
    if ("ours", "two processes") in medians:
        result[f"{name}_two_processes_ratio"] = medians["ours", "two processes"] / base
        result[f"{name}_two_processes_ratio_alike"] = (
            medians["ours", "two processes"] / medians["plain", "two processes"]
        )
    return result


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="short epochs and few rounds, in under a minute")
    options.add_argument("--device", default="auto")
    options.add_argument("--one", nargs=3, metavar=("LOOP", "METHOD", "IMAGES"), help=argparse.SUPPRESS)
    options = options.parse_args()
    device = choose_device(options.device)
    if options.one:
        torch.set_num_threads(1)
        loop, method, images = options.one
        print(LOOPS[loop](method, int(images), torch.device("cpu")))
        return
    images, rounds = (2_560, 3) if options.quick else (6_400, 5)
    result = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
    for method in METHODS:
        result |= compare(method, images, rounds, device)
    print(json.dumps({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in result.items()}))


if __name__ == "__main__":
    main()
