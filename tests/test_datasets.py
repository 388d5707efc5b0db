"""Data sets that are not there, and folders of images."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image

from backend import pipeline
from backend.datasets import DATASETS, DatasetError, dataset_names, find_dataset, named
from backend.home import runs_root, snapshot_path
from backend.images import decode, see
from backend.jobs.worker import work
from backend.live import Session
from backend.pipeline import choose_device, execute
from backend.plan import certify_again, plan
from backend.rows import Checkpoint
from backend.run import Run, RunError
from backend.spec import Certification
from backend.verify import verify
from tests.conftest import save


@pytest.mark.parametrize(
    ("kind", "place"),
    [("MNIST", "MNIST/raw"), ("FashionMNIST", "FashionMNIST/raw"), ("CIFAR10", "cifar-10-batches-py")],
)
def test_what_cannot_be_downloaded_names_the_path(kind, place, root, monkeypatch):
    import torchvision.datasets

    def refuse(*_, **__):
        raise RuntimeError("no route to host")

    monkeypatch.setattr(getattr(torchvision.datasets, kind), "download", refuse)
    name = {"MNIST": "mnist", "FashionMNIST": "fashion_mnist", "CIFAR10": "cifar10"}[kind]
    with pytest.raises(DatasetError, match=f"is not in {root / place} and could not be downloaded"):
        find_dataset(name).load(train=False)


def test_a_file_that_was_cut_off_is_called_damaged(root):
    (root / "MNIST/raw").mkdir(parents=True)
    for what in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (root / "MNIST/raw" / f"{what}-ubyte").write_bytes(b"\0\0\x08")
    with pytest.raises(DatasetError, match=f"MNIST in {root}/MNIST/raw is damaged or not whole .* Delete that folder"):
        find_dataset("mnist").load(train=False)


def test_one_at_a_time_downloads(root, monkeypatch):
    """torchvision writes in place: who comes second finds the whole."""
    import torchvision.datasets

    inside, most = [], []

    def download(*_, **__):
        inside.append(1)
        time.sleep(0.05)
        most.append(len(inside))
        inside.pop()
        raise RuntimeError("no route to host")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(find_dataset("mnist").load, train=False) for _ in range(4)]
    assert all(isinstance(one.exception(), DatasetError) for one in asked)
    assert most == [1, 1, 1, 1]


def test_a_read_only_server_downloads_nothing(root, monkeypatch):
    import torchvision.datasets

    asked = []
    monkeypatch.setattr(torchvision.datasets.MNIST, "download", lambda _: asked.append(True))
    monkeypatch.setenv("CERTSCOPE_READ_ONLY", "true")
    with pytest.raises(DatasetError, match=r"MNIST is not in .*Dataset not found"):
        find_dataset("mnist").load(train=False)
    assert not asked
    monkeypatch.setenv("CERTSCOPE_READ_ONLY", "0")
    with pytest.raises(DatasetError):
        find_dataset("mnist").load(train=False)
    assert asked


def test_imagenet_names_the_path(root):
    with pytest.raises(DatasetError, match=f"no images in {root}/imagenet/val"):
        DATASETS["imagenet"].load(train=False)
    assert DATASETS["imagenet"].every == 100


@pytest.mark.parametrize("name", ["cats", "../pets", "Pets", ""])
def test_unknown_names_say_where_folders_are_looked_for(name, pets, root):
    with pytest.raises(DatasetError, match=f"or a folder|{root}/folders/NAME"):
        find_dataset(name)


def test_a_folder_is_a_data_set(pets):
    assert dataset_names() == [*DATASETS, "pets"]
    assert (pets.shape, pets.classes, pets.test_images, pets.every) == ((3, 40, 40), ("cat", "dog"), 6, 1)
    split = pets.load(train=False)
    assert split.labels.tolist() == [0, 0, 0, 1, 1, 1]
    images = split.images[[0, 4]]
    assert images.shape == (2, 3, 40, 40)
    assert images[0, :, 20, 20].tolist() == [200, 0, 0]
    assert images[1, 2, 20, 20] > 190  # JPEG


def test_large_images_become_224(root):
    save(root / "folders" / "views" / "test" / "land" / "0.png", "green", (400, 300))
    save(root / "folders" / "views" / "test" / "sea" / "0.png", "navy", (400, 300))
    views = find_dataset("views")
    assert views.shape == (3, 224, 224)
    assert views.load(train=False).images[[0]].shape == (1, 3, 224, 224)


def test_a_folder_that_grows_is_looked_into_again(pets, root):
    assert (pets.test_images, pets.classes) == (6, ("cat", "dog"))
    save(root / "folders" / "pets" / "val" / "cow" / "0.png", "brown")
    assert find_dataset("pets").classes == ("cat", "cow", "dog")
    save(root / "folders" / "pets" / "val" / "cow" / "1.png", "brown")
    assert find_dataset("pets").test_images == 8


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


def test_imagenets_folders_have_the_same_names(root):
    """A label is the place of a name: other names in val would be other things."""
    for split, word in (("train", "n"), ("val", "m")):
        for number in range(1000):
            folder = root / "imagenet" / split / f"{word}{number:08}"
            folder.mkdir(parents=True)
            (folder / "0.png").touch()
    with pytest.raises(DatasetError, match=r"must hold the same folders of classes; .* and 1990 more"):
        DATASETS["imagenet"].load(train=True)


def test_an_empty_folder_names_itself(root):
    (root / "folders" / "void" / "test").mkdir(parents=True)
    with pytest.raises(DatasetError, match=f"no images in {root}/folders/void/test"):
        find_dataset("void")


def test_classes_of_train_and_val_must_be_the_same(pets, root):
    (root / "folders" / "pets" / "train" / "dog").rename(root / "folders" / "pets" / "train" / "Dog")
    with pytest.raises(DatasetError, match="must hold the same folders of classes; only one of them has Dog, dog"):
        find_dataset("pets").load(train=True)
    find_dataset("pets").load(train=False)  # certifying wants no training images


def test_one_class_is_none(root):
    save(root / "folders" / "only" / "test" / "cat" / "0.png", "red")
    with pytest.raises(DatasetError, match="wants a folder for each of two classes or more"):
        find_dataset("only")


def test_a_damaged_image_is_named(pets, root):
    path = root / "folders" / "pets" / "val" / "dog" / "1.jpg"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DatasetError, match=f"{path} cannot be read .* replace it or take it away"):
        pets.load(train=False).images[[4]]


@pytest.mark.parametrize("kind", ["16-bit", "transparent", "rotated", "wide"])
def test_a_folders_image_is_seen_as_an_upload_is(kind, root):
    """The same pixels from a folder, which is certified, and from the page's upload, whatever the file's form."""
    random = np.random.default_rng(0)
    path = root / "folders" / "odd" / "test" / "a" / "0.png"
    save(path, "red", (64, 48))
    save(root / "folders" / "odd" / "test" / "b" / "0.png", "blue", (64, 48))
    if kind == "16-bit":
        Image.fromarray(random.integers(2_000, 30_000, (48, 64), dtype=np.uint16)).save(path)
    elif kind == "transparent":
        Image.fromarray(random.integers(0, 256, (48, 64, 4), dtype=np.uint8), "RGBA").save(path)
    elif kind == "rotated":
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(random.integers(0, 256, (64, 48, 3), dtype=np.uint8)).save(path, exif=exif)
    else:
        Image.fromarray(random.integers(0, 256, (300, 900, 3), dtype=np.uint8)).save(path)
    odd = find_dataset("odd")
    (folder,) = odd.load(train=False).images[[0]]
    assert np.array_equal(see(decode(path.read_bytes()), odd).pixels, folder)
    assert len(np.unique(folder)) > 50


def test_classes_have_names_where_their_data_set_is_here(pets, root):
    then = f"val/every 1/images {find_dataset('pets').version}"
    assert named("pets", then, [0, 1]) == ["cat", "dog"]
    save(root / "folders" / "pets" / "val" / "ape" / "0.png", "brown")
    assert named("pets", then, [0, 1]) == ["0", "1"]  # they are no longer the first two
    assert named("fashion_mnist", "test/every 20", [9, 0]) == ["ankle boot", "T-shirt"]
    assert named("fashion_mnist", "test/every 20", [10]) == ["10"]
    assert named("a_folder_that_is_gone", "test/every 20", [0, 7]) == ["0", "7"]


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
