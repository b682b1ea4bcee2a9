"""Fashion-MNIST at 8x8: the first 4,000 training and the first 2,000 test images.

Each image was averaged from 28x28 to 8x8 by Pillow's box filter: `Image.fromarray(x).resize((8, 8),
Image.Resampling.BOX)`. Images and licence are Zalando SE's (MIT, 2017; see LICENSE).
"""
