"""What a file that somebody adds must state, and what is said where it does not."""

import shutil
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch

from backend.datasets import find_dataset
from backend.home import CHECKOUT, runs_root
from backend.pipeline import choose_device
from backend.plan import plan
from backend.run import Run
from backend.spec import SpecError, hyper
from backend.training import methods
from backend.training.loop import TrainingError, train
from backend.training.methods import METHODS, Method

OWN = """
from dataclasses import dataclass
from backend.spec import hyper
from backend.training.methods import Method

@dataclass(frozen=True)
class Own(Method):
    title = "Own"
    paper = "nobody, nowhere"
    {field}

METHOD = Own
"""


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("hard: bool = hyper(False, 'hard or not')", "hard must be a whole number, a number or one of several words, not False"),
        ("gain: float = hyper(3, 'gain', low=0)", "gain is declared otherwise than its default 3, a whole number"),
        ("lam: int = hyper(3, 'weight', low=0)", "lam must be a number, as in another method, or have another name"),
        ("gain: float = hyper(3.0, 'gain')", "gain must have a low or choices"),
        ("kind: str = hyper('a', 'kind')", "kind must have choices"),
        ("gain: float = 3.0", "gain must be made by hyper(default, doc, ...)"),
    ],
)  # fmt: skip
def test_a_field_of_which_no_flag_could_be_made_is_refused(field, said):
    namespace = {"__name__": __name__}
    exec(OWN.format(field=field), namespace)
    kinds = {"lam": float}
    with pytest.raises(SpecError) as error:
        methods._check(namespace["METHOD"], kinds)
    assert str(error.value) == said


def test_a_file_without_a_method_or_a_title_is_refused():
    with pytest.raises(SpecError, match="METHOD must be the method's class, derived from Method"):
        methods._check(None, {})
    with pytest.raises(SpecError, match="Nameless must have a title and a paper"):
        methods._check(type("Nameless", (Method,), {}), {})


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("hard: bool = hyper(False, 'hard or not')", "certscope: backend/training/methods/own.py: hard must be a whole number"),
        ("alpha: float = hyper(1.0, 'a weight', low=0)", "certscope: argument --alpha: conflicting option string: --alpha"),
    ],
)  # fmt: skip
def test_the_command_line_says_which_file_is_wrong(field, said, tmp_path):
    """The real command, on a copy of the backend with one file more."""
    shutil.copytree(CHECKOUT / "backend", tmp_path / "backend", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "backend" / "training" / "methods" / "own.py").write_text(OWN.format(field=field))
    command = [sys.executable, "-m", "backend", "methods"]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


@dataclass(frozen=True)
class Returns(Method):
    """Cross-entropy, returned as `how` says."""

    title = "Returns"
    paper = "nobody, nowhere"
    how: str = hyper("flat", "what is wrong", choices=("flat", "tensor", "number", "column", "late"))

    def loss_terms(self, classifier, batch):
        logits = classifier(batch.x + batch.noise[0])
        ce = torch.nn.functional.cross_entropy(logits, batch.y)
        late = {"late": ce * 0} if batch.epoch else {}
        return {
            "flat": (logits, {"ce": ce}), "tensor": (logits[None], ce), "number": (logits[None], {"ce": 1.0}),
            "column": (logits[None], {"accuracy": ce}), "late": (logits[None], {"ce": ce} | late),
        }[self.how]  # fmt: skip


@pytest.fixture
def own(monkeypatch):
    monkeypatch.setitem(METHODS, "returns", Returns)
    return lambda how: plan("digits", "returns", 0.25, values={"how": how}, epochs=2)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("flat", r"loss_terms of returns must return logits \(m, \d+, 10\) first, not \(\d+, 10\)"),
        ("tensor", "must return named scalar tensors as terms, not tensor"),
        ("number", r"must return named scalar tensors as terms, not \{'ce': 1.0\}"),
        ("column", "a term of returns must be a word other than epoch, .*accuracy.*, not 'accuracy'"),
    ],
)
def test_what_loss_terms_returns_is_looked_at(how, said, own):
    with pytest.raises(TrainingError, match=said):
        list(train(own(how), find_dataset("digits"), choose_device("cpu")))


def test_a_term_that_comes_later_ends_the_run_before_it_could_not_be_read(own, home):
    spec = own("late")
    run = Run.create(runs_root(), spec)
    first, _, second, *_ = train(spec, find_dataset("digits"), choose_device("cpu"))
    run.append(first)
    with pytest.raises(
        ValueError, match=r"has the columns .*'ce'\], and the next row .*'late'\]: all rows need the same"
    ):
        run.append(second)
    assert [epoch["epoch"] for epoch in run.epochs()] == [1]
