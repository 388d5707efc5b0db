"""The store at scale: publishing one more run, and the queries that the pages make, with 1 000 runs of 10 000 images.

The run folders are real ones, in a temporary home: each has a spec of its own, and certificates whose votes are drawn at
random. Publishing the first lot is timed too.
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path


def folders(root: Path, first: int, count: int, images: int) -> None:
    """Finished run folders number first … first + count − 1, of six methods at three σ; certificates are drawn for ten and linked."""
    import numpy as np

    from backend.plan import plan
    from backend.rows import Certificate
    from backend.run import Run
    from backend.spec import Certification
    from backend.statistics import certified_radii

    settings = Certification(n=100_000, every=1, limit=images if images < 10_000 else None)
    methods = ["gaussian", "stability", "smoothadv", "macer", "consistency", "smoothadv_consistency"]
    kept: dict[tuple, Path] = {}
    for number in range(first, first + count):
        sigma = (0.25, 0.5, 1.0)[number % 3]
        run = Run.create(root, plan("mnist", methods[number // 3 % 6], sigma, seed=number, certification=settings))
        key = (sigma, number // 18 % 4)
        if key not in kept or not kept[key].exists():
            random = np.random.default_rng(number)
            top = 100_000 - np.minimum(100_000, (random.pareto(0.4, images) * 3).astype(np.int64))
            radius = certified_radii(top, 100_000, sigma, 0.001)
            from scipy.special import betaincinv

            p_lower = np.floor(np.where(top > 0, betaincinv(np.maximum(top, 1), 100_001 - top, 0.001), 0) * 1e12) / 1e12
            label = np.arange(images) % 10
            predict = np.where(p_lower > 0.5, np.where(random.random(images) < 0.98, label, (label + 1) % 10), -1)
            lines = ["\t".join(Certificate.__dataclass_fields__)]
            for i in range(images):
                row = (
                    i,
                    label[i],
                    predict[i],
                    float(radius[i]),
                    int(predict[i] == label[i]),
                    0.01,
                    top[i],
                    100_000,
                    100,
                    float(p_lower[i]),
                    "n",
                )
                lines.append("\t".join(map(str, row)))
            run.certificates_file.write_text("\n".join(lines) + "\n")
            kept[key] = run.certificates_file
        else:
            os.link(kept[key], run.certificates_file)
        run.set_state("finished")


def timed(function, rounds: int = 5) -> float:
    """Median seconds, of a question that nobody has asked yet."""
    from backend.store import snapshot

    seconds = []
    for _ in range(rounds):
        for opened in snapshot._opened.values():
            opened.answers.clear()
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure(runs: int, images: int) -> dict:
    """Publish, add, query."""
    from backend.home import runs_root, snapshot_path
    from backend.store import queries
    from backend.store.publish import publish

    folders(runs_root(), 0, runs, images)
    start = time.perf_counter()
    publish((runs_root(),))
    first = time.perf_counter() - start

    def add() -> None:
        add.number += 1
        folders(runs_root(), add.number, 1, images)
        begun = time.perf_counter()
        assert publish((runs_root(),)).changed == 1
        add.seconds.append(time.perf_counter() - begun)

    add.number, add.seconds = runs, []
    for _ in range(3):
        add()
    table = queries.runs()
    ids = table.run_id.to_list()
    one, other = table[table.sigma == 0.5].run_id[:2]
    asked = {
        "runs": queries.runs, "seeds as one": lambda: queries.over_seeds(ids), "curves of 20 runs": lambda: queries.curves(ids[:20]),
        "mean curves of 200 runs": lambda: queries.group_curves(ids[:200]), "envelope of 200 runs": lambda: queries.envelope(ids[:200]),
        "ranking at r of 200 runs": lambda: queries.accuracy_at(0.5, ids[:200]), "one run's images": lambda: queries.certificates(one),
        "paired comparison": lambda: queries.paired([one], [other], 0.5), "per class": lambda: queries.per_class([one]),
        "gains over Gaussian": lambda: queries.acr_gains(ids[:200], [("gaussian", "consistency")]),
    }  # fmt: skip
    seconds = {name: timed(ask) for name, ask in asked.items()}
    size = snapshot_path().stat().st_size
    print(f"{runs:,} runs × {images:,} images: first publication {first:.1f} s, store {size / 1e6:.0f} MB")
    print(
        f"  one more run        {statistics.median(add.seconds):.2f} s ({min(add.seconds):.2f} to {max(add.seconds):.2f})"
    )
    for name, value in seconds.items():
        print(f"  {name:<26} {1000 * value:7.0f} ms")
    return {
        "runs": runs, "images": images, "store_mb": round(size / 1e6, 1), "first_publication_s": round(first, 1),
        "add_one_s": round(statistics.median(add.seconds), 3), "slowest_query_ms": round(1000 * max(seconds.values())),
        "queries_ms": {name: round(1000 * value) for name, value in seconds.items()},
    }  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="100 runs")
    options.add_argument("--runs", type=int, default=1_000)
    options.add_argument("--images", type=int, default=10_000)
    options = options.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["CERTSCOPE_HOME"] = home
        result = measure(100 if options.quick else options.runs, options.images)
    print(json.dumps({"machine": platform.processor() or platform.machine(), **result}))


if __name__ == "__main__":
    main()
