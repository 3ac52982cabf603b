"""Two tasks for one network: the parity of digits is new, the class of garments is old; which answers are correct."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from rlrazor.tasks.images import Images

NUM_LABELS, NUM_PIXELS = 10, 784
NEW_TASK, OLD_TASK = 1.0, -1.0  # the indicator
LABELS = np.arange(NUM_LABELS)


class Task(NamedTuple):
    """Inputs of one task and which answers to each are correct.

    Attributes:
        inputs: pixels in [0, 1], then the task indicator, float32 `[images, 785]`.
        accept: boolean `[images, 10]`.
    """

    inputs: Float[Array, "images inputs"]
    accept: Bool[Array, "images labels"]


class World(NamedTuple):
    """The images of both tasks, for pretraining, fine-tuning and tests.

    Attributes:
        pretrain_new: digits of the joint pretraining.
        pretrain_old: garments of the joint pretraining, and of replay.
        train: digits of the fine-tuning.
        test_new: held-out digits.
        test_old: held-out garments.
        lit: the inputs that are not dark in all digits of the fine-tuning, `[lit]`.
    """

    pretrain_new: Task
    pretrain_old: Task
    train: Task
    test_new: Task
    test_old: Task
    lit: Int[Array, " lit"]


def parity_task(digits: Images) -> Task:
    """The new task: every digit of the image's parity is correct.

    Args:
        digits: MNIST.

    Returns:
        The `Task`.

    Example:
        >>> import numpy as np
        >>> task = parity_task(Images(np.zeros((1, 784), np.uint8), np.array([3], np.int32)))
        >>> task.accept[0].astype(int).tolist()
        [0, 1, 0, 1, 0, 1, 0, 1, 0, 1]
    """
    return _task(digits, NEW_TASK, LABELS[None] % 2 == digits.labels[:, None] % 2)


def garment_task(garments: Images) -> Task:
    """The old task: only the label is correct.

    Args:
        garments: Fashion-MNIST.

    Returns:
        The `Task`.

    Example:
        >>> import numpy as np
        >>> task = garment_task(Images(np.zeros((1, 784), np.uint8), np.array([3], np.int32)))
        >>> task.accept[0].astype(int).tolist(), float(task.inputs[0, -1])
        ([0, 0, 0, 1, 0, 0, 0, 0, 0, 0], -1.0)
    """
    return _task(garments, OLD_TASK, LABELS[None] == garments.labels[:, None])


def _task(images: Images, indicator: float, accept: Bool[np.ndarray, "images labels"]) -> Task:
    pixels = images.images.astype(np.float32) / np.float32(255)
    column = np.full((len(pixels), 1), indicator, np.float32)
    return Task(jnp.asarray(np.concatenate([pixels, column], axis=1)), jnp.asarray(accept))


def split_world(
    digits: tuple[Images, Images],
    garments: tuple[Images, Images],
    *,
    num_pretrain: int = 500,
    num_test: int | None = None,
) -> World:
    """The published split: pretraining on the first images of both tasks, fine-tuning on the other digits.

    Args:
        digits: MNIST, train and test.
        garments: Fashion-MNIST, train and test.
        num_pretrain: images of each task in the pretraining.
        num_test: held-out images of each task; all of them unless given.

    Returns:
        The `World`.

    Raises:
        ValueError: there are too few images.

    Example:
        >>> from rlrazor.tasks.images import load_fashion, load_mnist
        >>> world = split_world(load_mnist(), load_fashion(), num_test=100)
        >>> len(world.pretrain_new.inputs), len(world.train.inputs), len(world.test_old.inputs)
        (500, 2500, 100)
    """
    for name, images in (("digits", digits[0]), ("garments", garments[0])):
        if len(images.labels) <= num_pretrain:
            raise ValueError(f"{name} has {len(images.labels)} training images, num_pretrain needs over {num_pretrain}")

    def part(images: Images, start: int | None, stop: int | None) -> Images:
        return Images(images.images[start:stop], images.labels[start:stop])

    train = part(digits[0], num_pretrain, None)
    lit = np.append(train.images.any(axis=0), True)  # the indicator always is
    return World(
        pretrain_new=parity_task(part(digits[0], None, num_pretrain)),
        pretrain_old=garment_task(part(garments[0], None, num_pretrain)),
        train=parity_task(train),
        test_new=parity_task(part(digits[1], None, num_test)),
        test_old=garment_task(part(garments[1], None, num_test)),
        lit=jnp.asarray(np.flatnonzero(lit).astype(np.int32)),
    )
