"""Which networks the store calls collapsed."""

import shutil
from dataclasses import replace

import pytest

from backend.home import runs_root
from backend.plan import certify_again
from backend.run import Run
from backend.store import queries
from tests.store import ROWS, certificate, finished, publish


def test_a_network_that_collapsed_is_one_however_it_is_certified(home):
    """What certifies its weights again has no epochs that say so, and may have been published before it."""
    source = finished(ROWS, missing=9)
    settings = replace(source.spec.certification, n0=20)
    again = Run.create(runs_root(), certify_again(source.spec, source.run_id, settings))
    for idx, row in enumerate(ROWS):
        again.append(replace(certificate(idx, *row), n0=20))
    again.set_state("finished")
    source.set_state("running")
    publish()
    assert (queries.runs().missing_classes == 0).all()
    source.set_state("finished")
    publish()
    assert queries.runs().set_index("run_id").missing_classes.to_dict() == {source.run_id: 9, again.run_id: 9}
    assert publish().changed == 0
    for digests, expected in ((("aa", "bb"), (9, 0)), (("aa", "aa"), (9, 9))):  # another training of that name, since
        for run, digest in zip((source, again), digests, strict=True):
            run.set_environment({"weights_sha256": digest})
        publish()
        assert queries.runs().set_index("run_id").missing_classes.to_dict() == dict(
            zip((source.run_id, again.run_id), expected, strict=True)
        )
    shutil.rmtree(source.path)
    publish()  # what a store says does not hang on what it said before
    assert queries.runs().missing_classes.to_list() == [0]


def test_a_network_that_shows_it_in_one_certification_collapsed_in_all(home):
    """Its own, on few images, shows nothing; the other way round too."""
    source = finished(ROWS)
    again = Run.create(
        runs_root(), certify_again(source.spec, source.run_id, replace(source.spec.certification, limit=40))
    )
    for idx in range(40):
        again.append(certificate(idx, 1 + idx // 20, 2, 1000))
    again.set_state("finished")
    publish()
    assert queries.runs().missing_classes.to_list() == [1, 1]


@pytest.mark.parametrize(
    ("answers", "missing"),
    [
        ([2] * 20, 1),
        ([2] * 19, 0),
        ([2] * 18 + [1] * 2, 0),
        ([2] * 19 + [1], 1),
        ([2] * 19 + [-1] * 10, 0),
        ([2] * 20 + [-1] * 20, 1),
        ([2] * 20 + [-1] * 21, 0),
    ],
    ids=[
        "none of twenty",
        "too few to tell",
        "a tenth",
        "less than a tenth",
        "too few are answered",
        "half are answered",
        "most are left out",
    ],
)
def test_a_class_that_is_hardly_ever_answered_where_it_is_certified(home, answers, missing):
    rows = [(1, answer, 400 if answer < 0 else 1000) for answer in answers] + [(2, 2, 1000)] * 20
    finished(rows)
    publish()
    assert queries.runs().missing_classes.to_list() == [missing]
