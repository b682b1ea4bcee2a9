"""Networks and training objectives by name, readable without torch."""

from typing import NamedTuple


class Objective(NamedTuple):
    """A training objective: its class as `package.module:Class`, and the optional settings it implements."""

    path: str
    supports: tuple[str, ...] = ()


_FOLDER = "robust_flatness.training.objectives"
_SELECTION = ("attack_predicted_label", "attack_incorrect", "stop_after_flip")
_FRACTION = ("label_smoothing", "adversarial_fraction")
OBJECTIVES = {
    "at": Objective(f"{_FOLDER}.base:Objective", (*_FRACTION, *_SELECTION)),
    "mart": Objective(f"{_FOLDER}.mart:Mart", _SELECTION),
    "self-supervision": Objective(f"{_FOLDER}.self_supervision:SelfSupervision", _FRACTION),
    "trades": Objective(f"{_FOLDER}.trades:Trades", ("label_smoothing", "attack_incorrect")),
}

#: Cost of the kit's networks for one image of `side` pixels at `width` channels; it grows with the square of
#: both, and sets time limits on a cluster and the estimates of `robust-flatness plan`.
COSTS = {
    "small-resnet": {"width": 16, "side": 8, "multiply_adds": 133_696, "parameters": 19_754},
    "resnet18": {"width": 64, "side": 32, "multiply_adds": 555_422_720, "parameters": 11_174_922},
    "preact-resnet18": {"width": 64, "side": 32, "multiply_adds": 555_422_720, "parameters": 11_172_170},
    "wide-resnet-28": {"width": 160, "side": 32, "multiply_adds": 5_243_328_768, "parameters": 36_479_194},
    "wide-resnet-34": {"width": 160, "side": 32, "multiply_adds": 6_658_906_368, "parameters": 46_160_474},
}
