"""Fashion-MNIST at 8x8: the first 4,000 training and the first 2,000 test images, in the package.

Each image was averaged from 28x28 to 8x8 by Pillow's box filter: `Image.fromarray(x).resize((8, 8),
Image.Resampling.BOX)`. Images and licence are Zalando SE's (MIT, 2017; see LICENSE).
"""

from importlib.resources import as_file, files

from robust_flatness.config import DataSpec
from robust_flatness.data.dataset import Arrays
from robust_flatness.data.npz import read_npz
from robust_flatness.data.splits import split_official


def splits(spec: DataSpec, seed: int) -> Arrays:
    """Return the splits of the bundled images (see `split_official`): [n, 1, 8, 8] in ten classes."""
    with as_file(files(__name__) / "fashion8.npz") as path:
        source = read_npz(path, spec.known_classes)
    return split_official(source, spec, seed, "'fashion'")
