import pytest

from backend.certification.metrics import abstention, acr, certified_accuracy
from backend.rows import Certificate


def row(label, predict, radius):
    return Certificate(0, label, predict, radius, int(label == predict), 0.0, 0, 10, 1, 0.9)


def test_by_hand():
    rows = [row(1, 1, 0.5), row(2, 2, 1.0), row(3, 4, 2.0), row(5, -1, 0.0)]
    assert acr(rows) == pytest.approx(1.5 / 4)
    assert certified_accuracy(rows, 0) == 0.5
    assert certified_accuracy(rows, 0.5) == 0.5
    assert certified_accuracy(rows, 0.51) == 0.25
    assert certified_accuracy(rows, 1.1) == 0
    assert abstention(rows) == 0.25
