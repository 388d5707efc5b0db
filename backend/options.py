"""Options that several verbs share: how a run is trained, how it is certified, where; and what they were given, read back."""

import argparse
from dataclasses import fields

from backend.datasets import dataset_names, find_dataset
from backend.follow import add_executor
from backend.spec import MODES, PRECISIONS, RECIPES, WEIGHT_TYPES, Certification, SpecError
from backend.training.methods import METHODS


def add_training(sub: argparse.ArgumentParser, lam: bool) -> None:
    """Data set, network, recipe, precisions, and a flag for each hyper-parameter of any method. lam: --lam among them."""
    sub.add_argument("--dataset", default="mnist", help=", ".join(dataset_names()) + " (default: mnist)")
    sub.add_argument("--architecture", help="default: the data set's")
    sub.add_argument("--recipe", default="quick", help=", ".join(RECIPES) + " (default: quick)")
    sub.add_argument("--epochs", type=int, help="default: the recipe's")
    sub.add_argument(
        "--train-precision",
        default="float32",
        choices=PRECISIONS,
        help="bfloat16: autocast; faster on a GPU, and on processors with AVX512-BF16",
    )
    sub.add_argument(
        "--weights-dtype", default="float32", choices=WEIGHT_TYPES, help="what the final weights are rounded to"
    )
    known: dict[str, dict] = {}  # flag -> what it means -> the methods that mean it
    kinds = {f.name: type(f.default) for method in METHODS.values() for f in fields(method)}
    for method_name, method in METHODS.items():
        for f in fields(method):
            known.setdefault(f.name, {}).setdefault(f.metadata["doc"], []).append(method_name)
    group = sub.add_argument_group(
        "hyper-parameters", "default: the recipe's; `methods` lists them by method, with ranges"
    )
    for name, meanings in known.items():
        if lam or name != "lam":
            help = "; ".join(f"{', '.join(methods)}: {doc}" for doc, methods in meanings.items())
            flag = name.replace("_", "-")
            group.add_argument(
                f"--{flag}", type=kinds[name], dest=f"hyper_{name}", metavar=name.upper(), help=help.replace("%", "%%")
            )


def add_certification(sub: argparse.ArgumentParser) -> None:
    """Samples, α, images, mode and precision."""
    default = Certification()
    sub.add_argument("--n", type=int, default=default.n, help=f"samples for the bound (default {default.n})")
    sub.add_argument("--n0", type=int, default=default.n0, help=f"samples that select the class (default {default.n0})")
    sub.add_argument(
        "--alpha", type=float, default=default.alpha, help=f"probability of error (default {default.alpha})"
    )
    sub.add_argument("--every", type=int, help="every so many-th test image (default: the data set's; 20 for mnist)")
    sub.add_argument("--limit", type=int, help="the first so many of these images; a folder's lie class by class")
    sub.add_argument(
        "--mode", default=default.mode, choices=MODES, help="fixed (default) is the only one that papers use"
    )
    sub.add_argument("--radius", type=float, help="at-radius: decide about it; anytime: stop where it is certified")
    sub.add_argument("--width", type=float, help="anytime: stop where the radius is known this closely")
    sub.add_argument(
        "--float-sound", action="store_true", help="noise on the 8-bit grid: sound against rounding; slower"
    )
    sub.add_argument("--precision", choices=PRECISIONS, help="of the network (default: float32, or the source run's)")


def add_device(sub: argparse.ArgumentParser) -> None:
    """The device of what is computed here."""
    sub.add_argument("--device", default="auto", help="auto (default), cpu, cuda or cuda:N")


def add_place(sub: argparse.ArgumentParser) -> None:
    """Where it is computed: the device, and here or elsewhere."""
    add_device(sub)
    add_executor(sub)


def training_of(options) -> dict:
    """What `add_training` was given, as `plan` and `sweep` take it. Raises DatasetError for an unknown data set, SpecError for an unknown network and one that does not take its images."""
    dataset = find_dataset(options.dataset)
    if options.architecture not in (None, *dataset.architectures):  # now, and not in every run of a queue
        from backend.classifier.architectures import check_network

        try:
            check_network(options.architecture, dataset.shape)
        except ValueError as error:
            raise SpecError(f"no network {options.architecture} for {dataset.name}: {error}") from error
    values = {k.removeprefix("hyper_"): v for k, v in vars(options).items() if k.startswith("hyper_") and v is not None}
    names = ("dataset", "architecture", "recipe", "epochs", "train_precision", "weights_dtype")
    given = {name: getattr(options, name) for name in names} | {"values": values}
    return given | ({"precision": options.precision} if getattr(options, "precision", None) else {})


def certification_of(options, dataset: str) -> Certification:
    """What `add_certification` was given, for images of that data set. Raises SpecError for a value that is not allowed."""
    names = ("n", "n0", "alpha", "limit", "mode", "radius", "width", "float_sound")
    every = options.every if options.every is not None else find_dataset(dataset).every
    return Certification(every=every, **{name: getattr(options, name) for name in names})
