"""Build fashion8.npz from the four original files of Fashion-MNIST.

    python -m robust_flatness.data.fashion.build FOLDER OUT.npz

FOLDER holds `train-images-idx3-ubyte.gz` and its three companions, from the dataset's home page, from
torchvision's `FashionMNIST(download=True)`, or from Debian's package `dataset-fashion-mnist`.
Each image is averaged from 28x28 to 8x8 by Pillow's box filter. Needs Pillow.
"""

import gzip
import sys
from pathlib import Path

import numpy as np

#: Images kept of each part: the name in the result, the name of the original, and the count.
PARTS = (("train", "train", 4000), ("test", "t10k", 2000))
SIDE = 8


def read_idx(path: Path) -> np.ndarray:
    """Return the bytes of a gzipped IDX file in the shape that its header gives.

    The header is two zeros, the type (8: uint8), the number of dimensions, and each of them as a big-endian
    32-bit integer.
    """
    content = gzip.decompress(path.read_bytes())
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", count=dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def shrunk(images: np.ndarray) -> np.ndarray:
    """Return images [n, H, W] averaged to [n, 8, 8], uint8."""
    from PIL import Image

    size, box = (SIDE, SIDE), Image.Resampling.BOX
    return np.stack([np.asarray(Image.fromarray(image).resize(size, box)) for image in images])


def build(folder: Path) -> dict[str, np.ndarray]:
    """Return `x_train, y_train, x_test, y_test` of the first images of each part."""
    arrays = {}
    for part, original, count in PARTS:
        arrays[f"x_{part}"] = shrunk(read_idx(folder / f"{original}-images-idx3-ubyte.gz")[:count])
        arrays[f"y_{part}"] = read_idx(folder / f"{original}-labels-idx1-ubyte.gz")[:count]
    return arrays


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    np.savez_compressed(sys.argv[2], **build(Path(sys.argv[1])))
