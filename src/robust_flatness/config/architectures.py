"""Names and cost of the kit's networks, readable without torch.

A network's cost is that of one image of `side` pixels at a network of `width` channels; it grows with the
square of both, and sets time limits on a cluster and the estimates of `robust-flatness plan`. The networks
themselves are built in `robust_flatness.architectures`.
"""

COSTS = {
    "small-resnet": {"width": 16, "side": 8, "multiply_adds": 133_696, "parameters": 19_754},
    "resnet18": {"width": 64, "side": 32, "multiply_adds": 555_422_720, "parameters": 11_174_922},
    "preact-resnet18": {"width": 64, "side": 32, "multiply_adds": 555_422_720, "parameters": 11_172_170},
    "wide-resnet-28": {"width": 160, "side": 32, "multiply_adds": 5_243_328_768, "parameters": 36_479_194},
    "wide-resnet-34": {"width": 160, "side": 32, "multiply_adds": 6_658_906_368, "parameters": 46_160_474},
}
