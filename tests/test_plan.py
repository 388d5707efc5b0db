"""Grids, typed lists, and the command that repeats a run."""

from dataclasses import replace

import pytest

from backend import cli
from backend.home import PRECOMPUTED
from backend.pipeline import choose_device, execute
from backend.plan import certify_again, command, numbers, plan, sweep
from backend.run import Run, all_runs
from backend.spec import Certification, SpecError
from backend.training.methods import METHODS

SHIPPED = [run.run_id for run in all_runs(PRECOMPUTED)]


@pytest.fixture
def parsed(monkeypatch):
    """A function: the spec that the command line makes of these words."""

    def spec(words):
        got = []
        monkeypatch.setattr(cli, "follow_all", lambda specs, options: got.extend(specs))
        assert cli.main(words) == 0
        return got[0]

    return spec


@pytest.mark.parametrize("run_id", SHIPPED)
def test_the_command_of_a_shipped_run_is_that_run(parsed, run_id):
    assert parsed(command(Run(PRECOMPUTED / run_id).spec)).run_id == run_id


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"certification": Certification()},
        {"recipe": "paper", "epochs": 3, "seed": 7, "weights_dtype": "float16", "train_precision": "bfloat16"},
        {"certification": Certification(n=500, limit=9, mode="anytime", radius=0.3, width=0.1, alpha=1e-05), "sigma": 0.333333},
        {"certification": Certification(mode="at-radius", radius=0.25, float_sound=True), "precision": "bfloat16"},
    ],
    ids=["trained", "certified", "paper", "anytime", "sound"],
)  # fmt: skip
def test_the_command_of_any_run_is_that_run(parsed, method, changes):
    spec = plan("digits", method, **{"sigma": 0.5} | changes)
    words = command(spec)
    assert words[0] == ("run" if spec.certification else "train")
    assert parsed(words) == spec


def test_the_command_of_a_run_that_takes_weights_names_their_run(parsed):
    source = next(run for run in all_runs(PRECOMPUTED) if run.weights_file.exists())
    again = certify_again(source.spec, source.run_id, Certification(n=77, every=100), "bfloat16")
    words = command(again)
    assert words[:2] == ["certify", source.run_id]
    assert parsed(words) == again


def test_where_no_command_repeats_a_run_it_is_said(digits_spec):
    spec = digits_spec()
    with pytest.raises(SpecError, match="its recipe's lr has no flag"):
        command(replace(spec, recipe=replace(spec.recipe, lr=0.2)))
    with pytest.raises(SpecError, match="imported"):
        command(replace(spec, source="published", radius_digits=3))


def test_typed_lists_are_numbers():
    assert numbers("λ", "1 5, 10;20 5") == [1, 5, 10, 20]
    assert numbers("seeds", " 0 1 ", int) == [0, 1]
    assert numbers("λ", "") == []


@pytest.mark.parametrize("text", ["0,25", "1,2", "one", "nan", "inf", "1 2 <b>"])
def test_what_is_no_list_of_numbers_gets_a_sentence(text):
    with pytest.raises(SpecError, match=r"λ must be numbers with spaces between them, such as 0\.25 0\.5 1"):
        numbers("λ", text)
    with pytest.raises(SpecError, match="seeds must be whole numbers"):
        numbers("seeds", "0.5", int)
    with pytest.raises(SpecError, match="seeds must be whole numbers"):
        numbers("seeds", "1" + "0" * 400, int)


def test_a_grid_is_bounded_before_it_is_planned():
    grid = ["gaussian", "consistency"], [0.25, 0.5], [1, 5, 10], range(3)
    assert len(sweep(*grid, most=24, dataset="digits")) == 2 * 3 * (1 + 3)
    with pytest.raises(SpecError, match="at most 23 runs, not 24: take fewer"):
        sweep(*grid, most=23, dataset="digits")
    with pytest.raises(SpecError, match="not 4,000,000,000"):
        sweep(["gaussian"], range(1, 4_000_001), [], range(1000), most=500, dataset="digits")


def test_settings_that_certify_nothing_are_refused_before_training():
    settings = Certification(float_sound=True)
    for sigma, given, says in (
        (0.01, settings, "sigma times scale from 0.7 to 500, not 0.16"),
        (0.5, replace(settings, alpha=1e-12), "too small for noise on a grid with n = 10000"),
        (
            0.5,
            Certification(n=9),
            "n = 9 samples can certify nothing at alpha = 0.001, not even where all agree: take 10 or more",
        ),
        (0.5, Certification(n=18, alpha=2e-6), "take 19 or more"),
        (
            0.25,
            Certification(n=1000, mode="at-radius", radius=0.61),
            "radius must be at most 0.5933, not 0.61: n = 1000 samples at sigma = 0.25",
        ),
        (0.25, Certification(n=1000, mode="anytime", radius=0.61), "radius must be at most 0.6072, not"),
    ):
        with pytest.raises(SpecError, match=says):
            plan("digits", "gaussian", sigma, certification=given)
        spec = plan("digits", "gaussian", sigma)
        with pytest.raises(SpecError, match=says):
            certify_again(spec, "trained", given)
        if given.radius is None:  # one that was begun goes on
            with pytest.raises(SpecError, match=says):
                next(execute(replace(spec, certification=given), choose_device("cpu")))
    assert plan("digits", "gaussian", 0.5, certification=Certification(n=10)).certification.n == 10
    assert plan("digits", "gaussian", 0.5, certification=Certification(n=19, alpha=2e-6))
