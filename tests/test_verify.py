import copy
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import BoundedSemaphore

import numpy as np
import pytest

from backend.certification.confidence import looks, lower_bound, radius
from backend.cli import main
from backend.datasets import DATASETS
from backend.home import CHECKOUT, PRECOMPUTED, runs_root
from backend.images import decode, see
from backend.live import Session
from backend.run import Run, find_run
from backend.spec import Certification
from backend.verify import FIELDS, IMAGE_FIELDS, Refuted, check_fresh, verify

RUN = find_run("mnist-lenet-consistency-s0.5-l5-seed0-abfa8ccd", PRECOMPUTED)
SEEN = see(decode((PRECOMPUTED / "samples" / "mnist" / "7-test0000.png").read_bytes()), DATASETS["mnist"], "no")


ONE = see(decode((PRECOMPUTED / "samples" / "mnist" / "1-test0002.png").read_bytes()), DATASETS["mnist"], "no")
BETWEEN = replace(SEEN, pixels=SEEN.pixels // 2 + ONE.pixels // 2)  # a seven on which the votes are split


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


@pytest.mark.parametrize("settings", [{"mode": "anytime", "radius": 0.3}, {"mode": "at-radius", "radius": 0.3}])
def test_the_other_modes_match(settings):
    c = certificate(**settings)
    assert c["samples"] < 2_000
    assert verify(c, find, "cpu").word == "match"


def test_a_class_chosen_against_the_votes_is_certified_as_it_was():
    """One sample chooses, and now and then the class of few: the bound above is that of the other one."""
    for seed in range(100):
        session = Session(RUN, BETWEEN.pixels, Certification(n=2_000, n0=1, mode="at-radius", radius=0.3), "cpu", seed)
        *_, last = session.watch()
        c = json.loads(json.dumps(session.certificate(last, BETWEEN.steps)))
        if c["selected"] != c["classes"][np.argmax(c["counts"])]:
            break
    assert c["abstained"]
    assert verify(c, find, "cpu").word == "match"


def test_a_certificate_has_the_fields_that_are_checked(genuine):
    assert (tuple(genuine), tuple(genuine["image"])) == (FIELDS, IMAGE_FIELDS)
    table = (CHECKOUT / "docs" / "certificate.md").read_text().partition("## The bound")[0]
    assert all(f"`{name}`" in table for name in (*FIELDS, *IMAGE_FIELDS))


def test_the_last_digit_of_a_bound_may_be_another_machines():
    """Of 10 000 votes for one class: half the allowance in p_lower is a hundred times as much in the radius."""
    session = Session(RUN, ONE.pixels, Certification(n=10_000), "cpu", seed=1)
    *_, last = session.watch()
    c = session.certificate(last, ())
    lower = c["p_lower"] - 1e-12
    assert c["radius"] - radius(lower, 0.5) > 1e-11
    assert verify(c | {"p_lower": lower, "radius": radius(lower, 0.5)}, find, "cpu").word == "match"


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


def test_a_seed_that_was_sought_is_refuted():
    """Six of six votes where every other one is for a seven: they come again with their seed, and with no other."""
    split = (SEEN.pixels * 0.42 + ONE.pixels * 0.58).astype("uint8")
    for seed in range(2_000):
        session = Session(RUN, split, Certification(n=6, n0=1, alpha=0.1), "cpu", seed)
        *_, last = session.watch()
        if last.top == 7 and last.counts[7] == 6:
            break
    verdict = verify(session.certificate(last, ()), find, "cpu")
    assert verdict.word == "refuted"
    assert "fresh samples vote for 7: p is at most 0." in verdict.reason


def test_a_check_can_be_ended_and_gives_its_turn_back(genuine, monkeypatch):
    turns = BoundedSemaphore(1)
    monkeypatch.setattr("backend.live.TURNS", turns)
    seen = []

    def leave(done, of):
        seen.append((done, of))
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify(genuine, find, "cpu", on_look=leave)
    assert seen == [(256, 2_000), (512, 2_000), (768, 2_000)]
    assert turns.acquire(blocking=False)


def test_a_check_takes_one_turn_at_a_time(genuine, monkeypatch):
    """With a single turn: sampling anew after the replay would wait for itself."""
    monkeypatch.setattr("backend.live.TURNS", BoundedSemaphore(1))
    with ThreadPoolExecutor(1) as pool:
        assert (
            pool.submit(verify, genuine | {"seed": genuine["seed"] ^ 1}, find, "cpu").result(120).word == "consistent"
        )


@pytest.mark.parametrize("shape", [[99_999] * 170_000, [1, 28, 28.0], "1", [784], [1, 28, -28], None])
def test_a_shape_that_is_none_is_refuted_at_once(genuine, shape):
    verdict = verify(genuine | {"image": genuine["image"] | {"shape": shape}}, find, "cpu")
    assert (verdict.word, "three whole numbers" in verdict.reason) == ("refuted", True)


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
        ({"radius": 3.0}, "votes give radius ="),
        ({"p_lower": 0.9999}, "votes give p_lower ="),
        ({"p_lower": 0.0}, "votes give p_lower ="),
        ({"p_lower": float("nan"), "radius": float("nan")}, "votes give p_lower ="),
        ({"radius": float("inf")}, "votes give radius ="),
        ({"stop": "robust"}, "the counts end the sampling with 'n', not 'robust'"),
        ({"claim": "anything goes"}, "its own claim"),
        ({"seed": "x"}, "seed must be"),
        ({"seed": -5}, "seed must be"),
        ({"seed": 10**400}, "seed must be"),
        ({"float_sound": True, "alpha": 1e-12}, "too small for noise on a grid"),
        ({"sigma": -1.0, "radius": -0.5}, "sigma must be"),
        ({"sigma": True}, "sigma must be a number"),
        ({"bound": "Hoeffding"}, "its own claim and bound"),
        ({"format": True}, "its own claim and bound"),
        ({"classes": ["7"] * 10}, "two classes have the same name"),
        ({"made": None}, "made must be a word"),
        ({"image__values": [12.9] * 784}, "whole numbers from 0"),
        ({"image__shape": [1, 28, 27]}, "as many values as its shape"),
        ({"run_id": ["x"]}, "run_id must be a word"),
        (
            {"classes": list("9876543210"), "selected": "2", "class": "2"},
            "classes are not those of mnist",
        ),
        ({"sigma": 5.0}, "votes give radius ="),
        ({"samples": 1_000}, "do not add up"),
        ({"n": 100_000}, "no look at 2000 samples"),
        ({"n0": 99}, "do not add up"),
        ({"selected": "1"}, "the selection counts select 7, not 1"),
        ({"class": "1"}, "class and abstention"),
        ({"n": 10**9, "n0": 10**9}, "do not add up"),
        ({"mode": "hope"}, "not a certificate of format 1"),
        ({"format": 2}, "certificates of format 1 with its own claim and bound, not 2"),
        ({"image__sha256": "0"}, "the pixels are not those"),
        ({"image__values": [0] * 784}, "the pixels are not those"),
        ({"weights_sha256": "0"}, "the weights of"),
        ({"counts": [-1] * 10}, "whole numbers from 0"),
        ({"counts": "many"}, "equally long"),
        ({"p_lower": None}, "votes give p_lower ="),
        ({"image__scale": 255.0}, "scale must be a whole number, not 255.0"),
        ({"image__scale": True}, "scale must be a whole number, not True"),
        ({"abstained": 0}, "abstained must be true or false, not 0"),
        ({"target": 0.5}, "mode fixed has no target radius"),
        ({"classes": list(range(10))}, "classes must be words"),
        (
            {"classes": [f"{i}\xa0x" for i in range(10)], "selected": "7\xa0x", "class": "7\xa0x"},
            "classes are not those of mnist",
        ),
        ({"classes": ["\x1b[8m", *map(str, range(1, 10))]}, "classes must be words"),
        (
            {"run_id": "\r\x1b[2Kmatch: sampled again"},
            "run_id must be a word, not '\\r\\x1b",
        ),  # as it is a terminal would obey it
        ({"radius_linf": 9.0}, "has no field 'radius_linf'"),
        ({"image__label": 7}, "has no field 'label'"),
        ({"samples": 2_000.0}, "samples must be a whole number, not 2000.0"),
    ],
)
def test_a_tampered_certificate_is_refuted(genuine, changes, says):
    verdict = verify(changed(genuine, **changes), find, "cpu")
    assert verdict.word == "refuted"
    assert says in verdict.reason


def test_true_bounds_are_hardly_ever_refuted_by_fresh_votes():
    """Where p is just what the certificate says, 5 000 times; and where it is off by a tenth, always."""
    random = np.random.default_rng(0)
    for p in (0.6, 0.95, 0.999):
        rest = [(1 - p) / 9] * 9
        for counts in random.multinomial(10_000, [p, *rest], 5_000).tolist():
            check_fresh(counts, 0, "7", (p, p))
        for counts in random.multinomial(10_000, [p, *rest], 20).tolist():
            for bounds, says in (((1.1 * p, 1.2), "p is at most"), ((0.1, 0.9 * p), "p is at least")):
                with pytest.raises(Refuted, match=says):
                    check_fresh(counts, 0, "7", bounds)


def test_fresh_votes_are_fresh(genuine, monkeypatch):
    """Not those of the certificate's seed, nor the same twice."""
    monkeypatch.setattr("backend.verify.FEWEST", 1_000)
    said = {verify(genuine, find, "cpu").reason for _ in range(4)}
    assert len(said) > 1


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
    (tmp_path / "c.json").write_text(json.dumps(genuine).replace('"radius": ', '"radius": 9.0, "radius": ', 1))
    assert main(["verify", str(tmp_path / "c.json")]) == 1
    assert "says something twice" in capsys.readouterr().err
    (tmp_path / "c.json").write_text(json.dumps(genuine | {"run_id": "\ud800"}))
    assert main(["verify", str(tmp_path / "c.json")]) == 1
    assert "This file is not a certificate, which is JSON" in capsys.readouterr().err
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


def test_another_sigma_with_its_radius_is_refuted_by_the_run(genuine):
    forged = genuine | {"sigma": 5.0, "radius": radius(genuine["p_lower"], 5.0)}
    assert "sigma is 5.0 in the certificate and 0.5 in" in verify(forged, find, "cpu").reason


def test_float_sound_and_abstentions_match():
    assert verify(certificate(float_sound=True, n=500), find, "cpu").word == "match"
    noise = np.random.default_rng(0).integers(0, 256, (1, 28, 28), dtype=np.uint8)
    session = Session(RUN, noise, Certification(n=300), "cpu")
    *_, last = session.watch()
    assert verify(session.certificate(last, ()), find, "cpu").word == "match"


def test_a_forged_not_robust_is_refuted_by_the_network(genuine):
    """As few votes as one likes: fresh samples show that they are more."""
    c = certificate(mode="at-radius", radius=0.3)
    done = c["samples"]
    votes = [0] * 10
    votes[7], votes[1] = done // 2, done - done // 2
    p = lower_bound(votes[7], done, dict(looks("at-radius", 2_000, 0.001))[done])
    forged = changed(
        c, counts=votes, p_lower=p, radius=radius(p, 0.5), abstained=True, stop="not robust", **{"class": None}
    )
    verdict = verify(forged, find, "cpu")
    assert verdict.word == "refuted"
    assert "fresh samples agree: p is at least" in verdict.reason


def test_a_network_without_weights_here_leaves_it_unchecked(genuine, home):
    Run.create(runs_root(), RUN.spec)
    assert verify(genuine, lambda run_id: find_run(run_id, runs_root()), "cpu").word == "unchecked"
