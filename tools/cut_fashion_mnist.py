"""Cut the balanced subset of Fashion-MNIST that the package carries: the first 200 of each class in each split.

It needs the official files, which Debian's dataset-fashion-mnist puts into /usr/share/datasets/fashion-mnist:

    python tools/cut_fashion_mnist.py /usr/share/datasets/fashion-mnist src/rlrazor/data/fashion_4k.npz

The arrays are the same on every run, and so is the file as long as zlib is. `load_fashion` checks their SHA-256.
"""

import argparse
from pathlib import Path

import numpy as np

from rlrazor.tasks.images import read_idx

PER_CLASS = 200


def main() -> None:
    """Cut, write, and say what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of the four official idx files")
    parser.add_argument("target", type=Path, help="npz file to write")
    arguments = parser.parse_args()
    arrays = {}
    for split, stem in (("train", "train"), ("test", "t10k")):
        images = read_idx(arguments.source / f"{stem}-images-idx3-ubyte")
        labels = read_idx(arguments.source / f"{stem}-labels-idx1-ubyte")
        # File order, so no random seed is involved.
        keep = np.sort(np.concatenate([np.flatnonzero(labels == label)[:PER_CLASS] for label in range(10)]))
        arrays[f"x_{split}"], arrays[f"y_{split}"] = images[keep], labels[keep]
    arguments.target.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(arguments.target, **arrays)
    shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
    print(f"{arguments.target}: {arguments.target.stat().st_size} bytes, {shapes}")


if __name__ == "__main__":
    main()
