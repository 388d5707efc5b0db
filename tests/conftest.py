"""Every test has a home of its own; the data sets lie in the checkout's var/data, as for an ordinary user."""

import os
import shutil

import pytest
from PIL import Image

from backend.datasets import find_dataset
from backend.home import CHECKOUT, snapshot_path
from backend.plan import plan
from backend.precompute import Part
from backend.spec import Certification

os.environ.setdefault("CERTSCOPE_DATA", str(CHECKOUT / "var" / "data"))
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start: equal results want equal threads


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty CERTSCOPE_HOME."""
    monkeypatch.setenv("CERTSCOPE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def shipped_store(tmp_path_factory):
    """A results store of the shipped runs alone; not to be written."""
    from backend.store.publish import publish  # not above: a GPU box tests training and certification without duckdb

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CERTSCOPE_HOME", str(tmp_path_factory.mktemp("shipped")))
        publish()
        return snapshot_path()


@pytest.fixture
def published(home, shipped_store):
    """CERTSCOPE_HOME, with the shipped runs published."""
    home.mkdir()
    shutil.copyfile(shipped_store, snapshot_path())
    return home


@pytest.fixture
def digits_spec():
    """A function: the spec of a run on digits that takes a second or two, with changes."""

    def spec(method="gaussian", sigma=0.5, **changes):
        usual = {"epochs": 2, "certification": Certification(n=200, n0=20, every=30)}
        return plan("digits", method, sigma, **usual | changes)

    return spec


@pytest.fixture
def parts(digits_spec):
    """A queue of shipped results in small: two parts, of two runs and one."""
    first = tuple(digits_spec(seed=seed) for seed in (0, 1))
    return [Part("first", first, weights=True), Part("second", (digits_spec("consistency"),))]


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty data root, and no proxy or network that a download could use."""
    monkeypatch.setenv("CERTSCOPE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def save(path, colour, size=(40, 48)):
    """An image of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def pets(root):
    """Two classes in train and val, 40×48: 32×32 is the usual size, 40 the shorter side."""
    for split, count in (("train", 6), ("val", 3)):
        for i in range(count):
            save(root / "folders" / "pets" / split / "cat" / f"{i}.png", (200, 10 * i, 0))
            save(root / "folders" / "pets" / split / "dog" / f"{i}.jpg", (0, 10 * i, 200))
    return find_dataset("pets")
