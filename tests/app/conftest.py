"""What the pages Runs and Run are tested with."""

import pytest

from backend.home import runs_root
from backend.jobs import local
from backend.run import Run


@pytest.fixture
def submitted(monkeypatch):
    """What the page queues; nothing is started."""
    specs = []

    def submit(given):
        runs = [Run.create(runs_root(), spec) for spec in given]
        for run in runs:
            run.set_state("queued")
        specs.extend(run.spec for run in runs)
        return runs

    monkeypatch.setattr(local, "submit", submit)
    return specs
