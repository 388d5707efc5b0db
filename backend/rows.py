"""What an execution yields, row by row: epochs and checkpoints of training, then a certificate an image."""

from dataclasses import dataclass, field
from math import isfinite

from backend.spec import WORD

ABSTAIN = -1


@dataclass(frozen=True)
class Epoch:
    """One epoch of training; `accuracy` is that of the base classifier on the noisy images that it is trained on, SmoothAdv's attacked ones, and SmoothMix's first iterates with mix_step 1."""

    epoch: int  # 1 is the first
    seconds: float
    images_per_second: float
    lr: float
    loss: float
    accuracy: float
    terms: dict[str, float] = field(default_factory=dict)  # the method's loss terms, which add up to `loss`
    missing_classes: int = 0  # answered less than a tenth as often as they occur; above 0 at the end: it collapsed


@dataclass(frozen=True)
class Checkpoint:
    """State after `epoch` epochs, as safetensors bytes; the final one holds the weights alone."""

    epoch: int
    tensors: bytes
    final: bool = False


@dataclass(frozen=True)
class Certificate:
    """CERTIFY's answer for one image. predict is ABSTAIN, with radius 0, where p_lower <= 1/2."""

    idx: int
    label: int
    predict: int
    radius: float
    correct: int
    time: float  # seconds
    top_count: int
    n: int  # samples that the bound rests on
    n0: int
    p_lower: float
    stop: str = "n"  # why sampling ended: at n, or what an adaptive mode found before


Row = Epoch | Checkpoint | Certificate
EPOCH_COLUMNS = tuple(name for name in Epoch.__dataclass_fields__ if name != "terms")


def epoch_read(row: dict[str, str]) -> dict[str, float]:
    """An epoch as training.tsv has it, its loss terms among the rest. Raises ValueError for what cannot be one."""
    values = {name: float(value) for name, value in row.items()}
    # Once there were no missing classes.
    if lacking := [name for name in EPOCH_COLUMNS if name not in values and name != "missing_classes"]:
        raise ValueError(f"it does not say its {', '.join(lacking)}")
    if wrong := [f"{name} = {v}" for name, v in values.items() if not (WORD.fullmatch(name) and isfinite(v))]:
        raise ValueError(", ".join(wrong))
    for name in ("epoch", "missing_classes"):
        if not (0 <= (value := values.get(name, 0.0)) <= 100_000 and value.is_integer()):
            raise ValueError(f"{name} = {value:g}")
    return values
