"""A commented experiment on a user's own data, with sizes that fit the data."""

import json
import math
from functools import partial
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np
import yaml

from robust_flatness.config.measures import LEAST_CLASSES
from robust_flatness.config.values import Epsilon, Name, parse
from robust_flatness.data.npz import read_npz
from robust_flatness.data.splits import warn_of_missing_classes
from robust_flatness.errors import ConfigError
from robust_flatness.experiment.experiment import load_experiment

#: The baseline, and one variant of each method named in the talk.
FIRST = ("at", "trades-6", "mart-6", "awp-0.01", "self-supervision-4", "weight-decay-0.05", "label-noise-0.3")
#: Number of updates below which the baseline stays close to its initial weights.
UPDATES = 400
#: AutoAttack without APGD-T, whose loss is not defined for so few classes.
FEW_CLASSES = "robustness: {autoattack: {version: reduced, attacks: [apgd-ce, fab-t, square]}}"
#: Text as a quoted scalar of YAML, of which JSON is a subset.
_quoted = partial(json.dumps, default=str, ensure_ascii=False)


def new_experiment(data: Path, file: Path, experiment: str, epsilon: str) -> str:
    """Return the YAML of an experiment on the images in `data` (see `read_npz`), to be written to `file`.
    Two thirds of the test images are for the measures, a third (at most 500) for early stopping. The epochs
    are as many as make `UPDATES` updates, at least 30 and at most the paper's 150."""
    parse(Name, experiment, "--name")
    source = read_npz(data)
    counts = np.bincount(source["y_train"])
    warn_of_missing_classes(source["y_train"], len(counts), str(data))
    train, all_test, least = len(source["y_train"]), len(source["y_test"]), 6 * len(counts)
    if min(train, all_test) < least:
        found = f"{train} training and {all_test} test images of {len(counts)} classes"
        raise ConfigError(f"{data}: {found}; at least {least} of each are needed")
    unlabeled, pool = 0, "the variant `unlabeled` needs some, taken from train"
    if "x_unlabeled" in source:
        unlabeled, pool = len(source["x_unlabeled"]), "x_unlabeled of the file"
    measures = "" if len(counts) >= LEAST_CLASSES else FEW_CLASSES
    early_stopping = min(500, all_test // 3)
    test = all_test - early_stopping
    batch_size, learning_rate = (128, 0.05) if train >= 5000 else (32, 0.1)
    epochs = min(150, max(30, math.ceil(UPDATES / math.ceil(train / batch_size))))
    channels, height, width = source["x_train"].shape[1:]
    epsilon = epsilon or ("8/255" if channels == 3 else "0.1")
    parse(Epsilon, epsilon, "--epsilon")
    side = min(height, width)
    model, augmentation = "name: small-resnet, width: 32", ""
    if side > 14:
        model = f"name: resnet18, width: {64 if train >= 20_000 else 16}"
        augmentation = f"crop: {side // 8}, flip: true" if channels == 3 else ""
    variants = (slug for slug in FIRST if slug != "self-supervision-4" or height == width)  # rotates images
    text = Template(files(__package__).joinpath("template.yaml").read_text(encoding="utf-8")).substitute(
        experiment=experiment, file=file, data=data, epsilon=epsilon, model=model, augmentation=augmentation,
        quoted_name=_quoted(experiment), quoted_data=_quoted(data), height=height, width=width, train=train,
        classes=len(counts), fewest=counts.min(), most=counts.max(), unlabeled=unlabeled, pool=pool,
        early_stopping=early_stopping, all_test=all_test, test=test, epochs=epochs, batch_size=batch_size,
        learning_rate=learning_rate, variants=", ".join(variants), measures=measures,
    )  # fmt: skip
    load_experiment(yaml.safe_load(text))
    return text
