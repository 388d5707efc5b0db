"""Samples per second of the sampler against the anchor: Algorithm 1 as everybody runs it, written plainly here.

Same process, same network, same number of samples, in turn; medians over the rounds. The anchor takes one image at a
time in batches of 1 000 (and, for its own best, of other sizes), copies the image once per sample, waits for the device
after every batch and counts votes in a Python loop. One thread on the CPU: a core is the unit; as many processes as cores
add up.
"""

import argparse
import json
import platform
import statistics
import time

import torch

from backend.certification.sampler import BLOCKS, Sampler
from backend.classifier.architectures import ARCHITECTURES
from backend.classifier.folding import folded
from backend.classifier.weights import layout
from backend.pipeline import choose_device
from backend.training.noise import stream

CASES = {"lenet": (1, 28, 28), "resnet20": (3, 32, 32), "resnet110": (3, 32, 32)}
SIGMA, CLASSES = 0.5, 10


def anchor(network, image, n: int, batch: int) -> list[int]:
    """SampleUnderNoise of Algorithm 1, plainly."""
    counts = [0] * CLASSES
    with torch.no_grad():
        while n > 0:
            size = min(batch, n)
            n -= size
            copies = image.repeat((size, 1, 1, 1))
            predictions = network(copies + torch.randn_like(copies) * SIGMA).argmax(1)
            for prediction in predictions.cpu().numpy():
                counts[prediction] += 1
    return counts


def rate(run, n: int, device) -> float:
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return n / (time.perf_counter() - start)


def peak(device, dtype=torch.float32) -> float:
    """Multiply-adds per second of a large matrix product: what this machine can do at best."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = torch.randn(2, size, size, device=device, dtype=dtype)
    return max(rate(lambda: a @ b, size**3, device) for _ in range(5))


def multiply_adds(network, shape) -> int:
    """Of one image, in convolutions and linear layers."""
    total = 0

    def count(layer, _, output):
        nonlocal total
        total += output[0].numel() * layer.weight[0].numel()

    hooks = [
        m.register_forward_hook(count) for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)
    ]
    with torch.no_grad():
        network(torch.zeros(1, *shape, device=next(network.parameters()).device))
    for hook in hooks:
        hook.remove()
    return total


def measure(name: str, device, seconds: float, batches: tuple[int, ...]) -> dict:
    """Rates of the anchor at each batch size and of ours, in turn, for about `seconds`."""
    torch.manual_seed(0)
    shape = CASES[name]
    plain = ARCHITECTURES[name](shape, CLASSES).to(device).eval()
    ours = ARCHITECTURES[name](shape, CLASSES).to(device, memory_format=layout(device, "float32")).eval()
    ours.load_state_dict(plain.state_dict())
    ours = folded(ours, shape)
    image = torch.rand(1, *shape, device=device)
    entrants = {f"anchor {b}": (lambda n, b=b: anchor(plain, image[0], n, b)) for b in batches}
    for precision in ("float32", "bfloat16"):
        sampler = Sampler(ours, CLASSES, SIGMA, device, precision)
        entrants[f"ours {precision}"] = lambda n, s=sampler: s.count(image, [n], [stream(0, "bench", 0, s.device)])
    grid = Sampler(ours, CLASSES, SIGMA, device, grid=255)
    entrants["ours float-sound"] = lambda n: grid.count(image, [n], [stream(0, "bench", 0, grid.device)])
    probe = 256 if device.type == "cpu" else 100_000
    anchor(plain, image[0], probe, 256)  # the first pass loads the kernels
    n = max(1000, int(rate(lambda: anchor(plain, image[0], probe, 256), probe, device) * seconds / len(entrants) / 4))
    n = -(-n // BLOCKS[device.type]) * BLOCKS[device.type]
    rates = {label: [] for label in entrants}
    deadline = time.perf_counter() + seconds
    rounds = 0
    while rounds < 3 or time.perf_counter() < deadline:
        for label, run in entrants.items():
            rates[label].append(rate(lambda run=run: run(n), n, device))
        rounds += 1
    medians = {label: statistics.median(values) for label, values in rates.items()}
    best = max(v for label, v in medians.items() if label.startswith("anchor"))
    share = medians["ours float32"] * multiply_adds(plain, shape) / peak(device)
    print(f"{name} on {device.type}, n = {n}, {rounds} rounds")
    for label, median in medians.items():
        spread = f"{min(rates[label]):,.0f} to {max(rates[label]):,.0f}"
        print(
            f"  {label:<16} {median:>12,.0f} samples/s ({spread})  {median / medians['anchor 1000']:.2f} × anchor at 1000"
        )
    print(
        f"  ours / the anchor's best {medians['ours float32'] / best:.2f}, share of the matrix-multiply peak {share:.0%}"
    )
    key = f"{name}_{device.type}"
    return {
        f"{key}_ratio": medians["ours float32"] / medians["anchor 1000"], f"{key}_ratio_best": medians["ours float32"] / best,
        f"{key}_rate": medians["ours float32"], f"{key}_peak_share": share,
        f"{key}_ratio_bfloat16": medians["ours bfloat16"] / medians["anchor 1000"],
    }  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="LeNet and ResNet-20 alone, in under 45 s")
    options.add_argument("--device", default="auto")
    options = options.parse_args()
    devices = [torch.device("cpu")]
    if (chosen := choose_device(options.device)).type == "cuda":
        devices.append(chosen)
    torch.set_num_threads(1)
    result = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": 1}
    for device in devices:
        for name, seconds in (
            (("lenet", 12), ("resnet20", 8)) if options.quick else (("lenet", 60), ("resnet20", 45), ("resnet110", 60))
        ):
            batches = (1000, 256, 64) if options.quick else (1000, 512, 256, 128, 64)
            if device.type == "cuda":
                batches = (10_000, *batches)
            result |= measure(name, device, seconds, batches)
    print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in result.items()}))


if __name__ == "__main__":
    main()
