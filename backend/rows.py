"""What an execution yields, row by row: epochs and checkpoints of training, then a certificate an image."""

from dataclasses import dataclass, field

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
