"""Hand-made runs on digits, and a store of them."""

from backend.certification.confidence import lower_bound, radius
from backend.home import runs_root
from backend.plan import plan
from backend.rows import ABSTAIN, Certificate, Epoch
from backend.run import Run
from backend.spec import Certification
from backend.store import publish as publisher
from backend.store import queries


def publish():
    """Without the shipped runs."""
    return publisher.publish((runs_root(),))


def mine():
    """The store's runs but for the shipped ones."""
    runs = queries.runs()
    return runs[runs.dataset == "digits"]


def certificate(idx, label, predict, votes, sigma=0.5):
    """Whose claims follow from its votes of 1 000."""
    p_lower = lower_bound(votes, 1_000, 0.001)
    return Certificate(
        idx, label, predict, radius(p_lower, sigma), int(label == predict), 0.1, votes, 1_000, 10, p_lower
    )


def finished(rows, sigma=0.5, **changes):
    """A finished run folder with hand-made certificates (label, predict, votes of 1 000), an image each. missing: classes, where it collapsed."""
    missing = changes.pop("missing", 0)
    settings = Certification(n=1_000, n0=10, every=1, limit=len(rows))
    spec = plan("digits", changes.pop("method", "gaussian"), sigma, certification=settings, **changes)
    run = Run.create(runs_root(), spec)
    run.append(Epoch(1, 1.0, 100.0, 0.01, 0.5, 0.9, {"cross_entropy": 0.5}, missing))
    for idx, row in enumerate(rows):
        run.append(certificate(idx, *row, sigma))
    run.set_state("finished")
    return run


def reach(votes):
    """The radius that so many votes of 1 000 certify."""
    return radius(lower_bound(votes, 1_000, 0.001), 0.5)


ROWS = [(1, 1, 900), (2, 2, 990), (3, 4, 999), (5, ABSTAIN, 500)]
