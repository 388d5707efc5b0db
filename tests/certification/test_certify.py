"""The images of a data set, one after the other."""

from dataclasses import asdict

import torch

from backend.certification.certify import certify
from backend.classifier.weights import build
from backend.datasets import DATASETS

CPU = torch.device("cpu")


def rows(spec, done=()):
    torch.manual_seed(0)
    dataset = DATASETS["digits"]
    network = build(spec.architecture, dataset, CPU, "float32").eval()
    return [asdict(row) | {"time": 0} for row in certify(spec, network, dataset, CPU, done)]


def test_windows_change_nothing(digits_spec, monkeypatch):
    """Images that come after those that are in memory at first keep their index, label and votes; so does what is left of a run."""
    spec = digits_spec()
    whole = sorted(rows(spec), key=lambda row: row["idx"])
    chosen = spec.certification.chosen(DATASETS["digits"].test_images)
    assert [row["idx"] for row in whole] == chosen
    labels = DATASETS["digits"].load(train=False).labels
    assert [row["label"] for row in whole] == [int(labels[idx]) for idx in chosen]
    monkeypatch.setattr("backend.certification.certify.WINDOW", 4)
    assert sorted(rows(spec), key=lambda row: row["idx"]) == whole
    done = set(chosen[1:7])
    assert sorted(rows(spec, done), key=lambda row: row["idx"]) == [row for row in whole if row["idx"] not in done]
