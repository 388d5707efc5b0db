"""What a person at a terminal sees of a run."""

import sys
import time

from backend.certification.metrics import acr
from backend.datasets import find_dataset
from backend.rows import Certificate, Epoch, Row
from backend.run import Run
from backend.spec import RunSpec
from backend.statistics import early_stop


class Progress:
    """Prints a line an epoch, and how far certification is, with rate and time left."""

    def __init__(self, spec: RunSpec, run: Run):
        self.spec = spec
        self.certificates = run.certificates()
        self.images = self.samples = 0
        self.start = self.shown = time.monotonic()
        self.width = 0

    def show(self, row: Row) -> None:
        """Take note of a row and print what it changes, at most twice a second on a terminal, every 10 s elsewhere."""
        if isinstance(row, Epoch):
            left = (self.spec.recipe.epochs - row.epoch) * row.seconds
            print(
                f"epoch {row.epoch}/{self.spec.recipe.epochs}  loss {row.loss:.4f}  accuracy under noise {row.accuracy:.4f}  "
                f"{row.images_per_second:,.0f} images/s  {duration(left)} left",
                flush=True,
            )
            self.start = time.monotonic()
        elif isinstance(row, Certificate):
            self.certificates.append(row)
            self.images += 1
            self.samples += row.n
            if time.monotonic() - self.shown > (0.5 if sys.stdout.isatty() else 10):
                self._line()

    def close(self) -> None:
        """Print where certification ended."""
        if self.images:
            self._line()
        if self.width:
            print()

    def _line(self) -> None:
        self.shown = time.monotonic()
        total, seconds = self._images(), self.shown - self.start
        rate = self.images / seconds
        so_far = "" if early_stop(self.spec.certification.label) else f"ACR so far {acr(self.certificates):.4f}  "
        text = (
            f"certified {len(self.certificates)}/{total} images  {so_far}"
            f"{self.samples / seconds:,.0f} samples/s  "
            f"{duration((total - len(self.certificates)) / rate)} left"
        )
        if sys.stdout.isatty():
            print("\r" + text.ljust(self.width), end="", flush=True)
            self.width = len(text)
        else:
            print(text, flush=True)

    def _images(self) -> int:
        return len(self.spec.certification.chosen(find_dataset(self.spec.dataset).test_images))


def duration(seconds: float) -> str:
    """Seconds as 41 s, 3 min 20 s or 2 h 05 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
