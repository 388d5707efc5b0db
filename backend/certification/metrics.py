"""Figures of a list of certificates, as the papers define them."""

from collections.abc import Sequence

from backend.rows import ABSTAIN, Certificate


def acr(certificates: Sequence[Certificate]) -> float:
    """Average certified radius (Zhai et al., ICLR 2020): mean over the images of 1[correct] · radius."""
    return sum(c.correct * c.radius for c in certificates) / len(certificates)


def certified_accuracy(certificates: Sequence[Certificate], r: float) -> float:
    """Share of the images predicted correctly with radius >= r; an abstention counts as wrong."""
    return sum(c.correct and c.radius >= r for c in certificates) / len(certificates)


def abstention(certificates: Sequence[Certificate]) -> float:
    """Share of the images for which the smoothed classifier abstains."""
    return sum(c.predict == ABSTAIN for c in certificates) / len(certificates)
