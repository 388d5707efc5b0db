"""What a network was trained on, of folders of images that change meanwhile."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from backend import pipeline
from backend.datasets import DATASETS, DatasetError
from backend.home import runs_root, snapshot_path
from backend.jobs.worker import work
from backend.live import Session
from backend.pipeline import choose_device, execute
from backend.plan import certify_again, plan
from backend.rows import Checkpoint
from backend.run import Run, RunError
from backend.spec import Certification
from backend.verify import verify
from tests.conftest import save


def test_runs_of_other_images_of_one_name_are_not_compared(pets, root, home):
    """A folder's test images may be others another day: runs say which, and one that was begun on others is not continued."""
    from backend.store import queries  # not above: a GPU box tests data sets without duckdb
    from backend.store.publish import publish
    from backend.store.snapshot import StoreError

    settings = Certification(n=20, n0=5, every=1)
    runs = []
    for seed in (0, 1):
        spec = plan("pets", "gaussian", 0.5, architecture="smallcnn", epochs=1, seed=seed, certification=settings)
        runs.append(Run.create(runs_root(), spec))
        assert work(runs[-1], "cpu")
        save(root / "folders" / "pets" / "val" / "cat" / "new.png", "red", (50, 90))
        (root / "folders" / "pets" / "val" / "cat" / "0.png").unlink(missing_ok=True)
    assert len({run.environment()["images"] for run in runs}) == 2
    publish((runs_root(),))
    first, second = queries.runs().image_set.tolist()
    assert first != second
    assert first.startswith("test/every 1/images ")
    assert queries.terms(queries.runs().iloc[0]).endswith(f"6 test images (every 1, images {first[-8:]})")
    with pytest.raises(StoreError, match="cannot be compared: they differ in image_set"):
        queries.paired([runs[0].run_id], [runs[1].run_id])
    save(root / "folders" / "pets" / "val" / "cat" / "newer.png", "red", (50, 90))  # a run of six stays one of six
    snapshot_path().unlink()
    assert publish((runs_root(),)).skipped == {}
    assert queries.runs().image_set.tolist() == [first, second]
    runs[0].set_state("interrupted")
    with pytest.raises(RunError, match="the test images of pets are not those that its earlier rows rest on"):
        work(runs[0], "cpu")


def test_training_does_not_go_on_with_other_images(pets, root, home):
    """A folder's training images may be others when a run is resumed: its last epochs would rest on others than its first."""
    settings = Certification(n=20, n0=5, every=1)
    spec = plan("pets", "gaussian", 0.5, architecture="smallcnn", epochs=2, certification=settings)
    run = Run.create(runs_root(), spec)

    def stop(row, final):
        if isinstance(row, Checkpoint) and row.final == final:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(run, "cpu", partial(stop, final=False))
    gone = root / "folders" / "pets" / "train" / "cat" / "0.png"
    content = gone.read_bytes()
    gone.unlink()
    with pytest.raises(RunError, match="the training images of pets are not those that its earlier rows rest on"):
        work(run, "cpu")
    gone.write_bytes(content)
    with pytest.raises(KeyboardInterrupt):
        work(run, "cpu", partial(stop, final=True))
    gone.unlink()  # what is trained is trained
    assert work(run, "cpu")
    assert run.count() == (2, 6)
    assert len(run.environment()["training_images"]) == 8
    assert "earlier" not in run.environment()


def test_training_and_certifying_go_on_with_images_of_one_size(pets, root, home):
    """The first test image has the side, and a network that ends in a mean over places takes any."""
    spec = plan(
        "pets", "gaussian", 0.5, architecture="resnet20", epochs=2, certification=Certification(n=20, n0=5, every=1)
    )
    run = Run.create(runs_root(), spec)

    def stop(row):
        if isinstance(row, Checkpoint):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work(run, "cpu", stop)
    small = root / "folders" / "pets" / "val" / "cat" / "!.png"
    save(small, "red", (24, 24))
    with pytest.raises(DatasetError, match=r"images of pets are 24×24 now, .* and the network was trained on 40×40"):
        work(run, "cpu")
    small.unlink()
    assert work(run, "cpu")
    again = Run.create(runs_root(), certify_again(spec, run.run_id, replace(spec.certification, n=30)))
    save(small, "red", (24, 24))
    with pytest.raises(DatasetError, match="images of pets are 24×24 now"):
        work(again, "cpu")
    with pytest.raises(DatasetError, match="images of pets are 24×24 now"):
        Session(run, np.zeros((3, 24, 24), np.uint8), spec.certification, "cpu")


def test_test_images_are_looked_for_before_training(monkeypatch):
    """Those that nobody can read end a run before its first epoch."""

    def read(train):
        if train:
            return DATASETS["digits"].read(train)
        raise DatasetError("no test images")

    monkeypatch.setattr(pipeline, "find_dataset", lambda name: replace(DATASETS[name], read=read))
    spec = plan("digits", "gaussian", 0.5, epochs=1)
    assert list(execute(spec, choose_device("cpu")))  # nothing is certified
    spec = replace(spec, certification=Certification(n=20, n0=5))
    with pytest.raises(DatasetError, match="no test images"):
        next(execute(spec, choose_device("cpu")))


def test_a_class_may_have_a_name_of_any_language(pets, root, home):
    """می‌خواهم has a character of no width inside, as Persian words have."""
    for split in ("train", "val"):
        (root / "folders" / "pets" / split / "cat").rename(root / "folders" / "pets" / split / "می\u200cخواهم")
    run = Run.create(runs_root(), plan("pets", "gaussian", 0.5, architecture="smallcnn", epochs=1))
    work(run, "cpu")
    session = Session(run, np.zeros(pets.shape, np.uint8), Certification(n=20), "cpu")
    *_, last = session.watch()
    assert verify(session.certificate(last, ()), lambda run_id: run, "cpu").word == "match"
    turned = session.certificate(last, ()) | {"classes": ["dog", "\u202egod"]}
    assert "classes must be words" in verify(turned, lambda run_id: run, "cpu").reason


def test_answers_of_a_network_keep_the_names_it_was_trained_with(pets, root, home):
    """Whoever renames a class of a folder would have its certificates, and those of its runs, speak of another thing."""
    settings = Certification(n=20, n0=5, every=1)
    spec = plan("pets", "gaussian", 0.5, architecture="smallcnn", epochs=1, certification=settings)
    run = Run.create(runs_root(), spec)
    work(run, "cpu")
    assert run.environment()["classes"] == ["cat", "dog"]
    pixels = np.zeros(pets.shape, np.uint8)
    session = Session(run, pixels, Certification(n=20), "cpu")
    *_, last = session.watch()
    genuine = session.certificate(last, ())
    for split in ("train", "val"):
        (root / "folders" / "pets" / split / "cat").rename(root / "folders" / "pets" / split / "zebra")
    says = "the classes of pets are dog, zebra now, and the network was trained on cat, dog"
    with pytest.raises(DatasetError, match=says):
        Session(run, pixels, Certification(n=20), "cpu")
    with pytest.raises(DatasetError, match=says):
        work(Run.create(runs_root(), certify_again(spec, run.run_id, settings)), "cpu")
    with pytest.raises(DatasetError, match=says):  # the honest certificate is not called false
        verify(genuine, lambda run_id: run, "cpu")
    other = verify(genuine | {"classes": ["dog", "zebra"], "selected": "dog", "class": None}, lambda run_id: run, "cpu")
    assert other.word == "refuted"
