"""Data sets that are not there, and folders of images."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from backend.datasets import DATASETS, DatasetError, dataset_names, find_dataset, named
from backend.images import decode, see
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


@pytest.mark.parametrize("name", ["a\nb", "a\u202eb", "\u05d0\u200f"])
def test_a_class_whose_name_turns_a_line_round_is_refused(pets, root, name):
    """No certificate could name it; a mark within Persian words, which turns nothing, stays."""
    (root / "folders" / "pets" / "val" / "dog").rename(root / "folders" / "pets" / "val" / "می\u200cخواهم")
    assert find_dataset("pets").classes == ("cat", "می\u200cخواهم")
    (root / "folders" / "pets" / "val" / "cat").rename(root / "folders" / "pets" / "val" / name)
    with pytest.raises(DatasetError, match="give its folder another name, in train too") as raised:
        find_dataset("pets")
    assert str(raised.value).isprintable()


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
