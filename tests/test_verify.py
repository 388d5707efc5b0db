import copy
import json
from dataclasses import replace

import pytest

from backend.certification.confidence import lower_bound, radius
from backend.cli import main
from backend.datasets import DATASETS
from backend.home import PRECOMPUTED, runs_root
from backend.images import decode, see
from backend.live import Session
from backend.run import Run, find_run
from backend.spec import Certification
from backend.verify import verify

RUN = find_run("mnist-lenet-consistency-s0.5-l5-seed0-e203f8c4", PRECOMPUTED)
SEEN = see(decode((PRECOMPUTED / "samples" / "mnist" / "7-test0000.png").read_bytes()), DATASETS["mnist"], "no")


ONE = see(decode((PRECOMPUTED / "samples" / "mnist" / "1-test0002.png").read_bytes()), DATASETS["mnist"], "no")
BETWEEN = replace(SEEN, pixels=SEEN.pixels // 4 * 3 + ONE.pixels // 4)  # a seven on which the votes are split


def find(run_id):
    return find_run(run_id, PRECOMPUTED)


def certificate(**settings):
    session = Session(RUN, BETWEEN.pixels, Certification(**{"n": 2_000} | settings), "cpu")
    *_, last = session.watch()
    return json.loads(json.dumps(session.certificate(last, BETWEEN.steps)))


@pytest.fixture(scope="module")
def genuine():
    return certificate()


def test_a_genuine_certificate_matches(genuine):
    verdict = verify(genuine, find, "cpu")
    assert (verdict.word, "gives the same 2000 votes" in verdict.reason) == ("match", True)


@pytest.mark.parametrize("settings", [{"mode": "anytime", "radius": 0.3}, {"mode": "at-radius", "radius": 0.5}])
def test_the_other_modes_match(settings):
    c = certificate(**settings)
    assert c["samples"] < 2_000
    assert verify(c, find, "cpu").word == "match"


def test_seeds_come_from_the_operating_system(genuine):
    assert certificate()["seed"] != genuine["seed"]


def test_no_certificate_before_the_last_look():
    session = Session(RUN, SEEN.pixels, Certification(n=2_000), "cpu")
    with pytest.raises(ValueError, match="only 256 of 2000 samples are counted"):
        session.certificate(next(session.watch()), ())


def test_another_seed_is_consistent(genuine):
    """As on a device that draws other noise from the same seed."""
    other = genuine | {"seed": genuine["seed"] ^ 1}
    assert verify(other, find, "cpu").word == "consistent"


def changed(c, **changes):
    c = copy.deepcopy(c)
    for path, value in changes.items():
        place, *rest = path.split("__")
        if rest:
            c[place][rest[0]] = value
        else:
            c[place] = value
    return c


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"radius": 3.0}, "the counts certify a radius of"),
        ({"p_lower": 0.9999}, "votes prove p >="),
        ({"sigma": 5.0}, "sigma is 5.0 in the certificate and 0.5 in"),
        ({"samples": 1_000}, "do not add up"),
        ({"n": 100_000}, "no look at 2000 samples"),
        ({"n0": 99}, "do not add up"),
        ({"selected": "1"}, "the selection counts select 7, not 1"),
        ({"class": "1"}, "class and abstention"),
        ({"mode": "hope"}, "not a certificate of format 1"),
        ({"format": 2}, "format 1, not 2"),
        ({"image__sha256": "0"}, "the pixels are not those"),
        ({"image__values": [0] * 784}, "the pixels are not those"),
        ({"weights_sha256": "0"}, "the weights of"),
        ({"counts": [-1] * 10}, "whole numbers from 0"),
        ({"counts": "many"}, "equally long"),
        ({"p_lower": None}, "not a certificate of format 1"),
    ],
)
def test_a_tampered_certificate_is_refuted(genuine, changes, says):
    verdict = verify(changed(genuine, **changes), find, "cpu")
    assert verdict.word == "refuted"
    assert says in verdict.reason


def test_invented_votes_are_refuted_by_the_network(genuine):
    """Consistent in itself: all votes for another class, bound and radius recomputed."""
    p = lower_bound(2_000, 2_000, 0.001)
    votes, selection = [0, 2_000] + [0] * 8, [0, 100] + [0] * 8
    forged = changed(
        genuine,
        counts=votes,
        selection_counts=selection,
        selected="1",
        p_lower=p,
        radius=radius(p, 0.5),
        **{"class": "1"},
    )
    verdict = verify(forged, find, "cpu")
    assert verdict.word == "refuted"
    assert "fresh samples vote for 1: p is at most" in verdict.reason


def test_without_its_network_the_claim_is_checked_alone(genuine, home):
    verdict = verify(genuine, lambda run_id: find_run(run_id, runs_root()), "cpu")
    assert verdict.word == "unchecked"
    assert "follows from the counts" in verdict.reason


def test_the_verb(genuine, home, tmp_path, capsys):
    (tmp_path / "c.json").write_text(json.dumps(genuine))
    assert main(["verify", str(tmp_path / "c.json"), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.startswith("match: ")
    (tmp_path / "c.json").write_text(json.dumps(genuine | {"radius": 9.0}))
    assert main(["verify", str(tmp_path / "c.json"), "--device", "cpu"]) == 1
    assert capsys.readouterr().out.startswith("refuted: ")
    (tmp_path / "c.json").write_text("hello")
    assert main(["verify", str(tmp_path / "c.json")]) == 1
    assert capsys.readouterr().err.startswith("certscope: ")


def test_bfloat16_is_served_in_bfloat16(home, tmp_path):
    """Its votes are those of the rounded network, and the certificate says so."""
    run = Run.create(tmp_path, replace(RUN.spec, precision="bfloat16"))
    run.weights_file.write_bytes(RUN.weights())
    session = Session(run, SEEN.pixels, Certification(n=500), "cpu", seed=1)
    *_, half = session.watch()
    assert session.certificate(half, ())["precision"] == "bfloat16"
    *_, full = Session(RUN, SEEN.pixels, Certification(n=500), "cpu", seed=1).watch()
    assert half.counts[7] == pytest.approx(full.counts[7], abs=10)
