"""The columns of the tables: names, words for axes, direction."""

import re
from collections.abc import Iterable

import pandas as pd

CHECKPOINTS = ("last", "best")
KEYS = ("variant", "seed", "checkpoint")
IDENTITY = (*KEYS, "family", "label", "derived", "epoch", "epochs")

#: Family of variants that config/variants.yaml does not know.
OTHER = "other"
#: Family of the RobustBench models in the published tables.
ROBUSTBENCH = "robustbench"

ERRORS = tuple(
    f"{split}_{measure}" for split in ("test", "train") for measure in ("err", "rerr_pgd", "rerr_aa")
)
LOSSES = tuple(
    f"{split}_{measure}" for split in ("test", "train") for measure in ("ce", "rloss_pgd", "rloss_aa")
)
FLATNESS = ("avg_flatness_rloss", "worst_flatness_rloss", "avg_flatness_ce", "worst_flatness_ce")
HESSIAN = ("hessian_max", "hessian_min", "convexity")
SETTINGS = (
    "avg_flatness_xi",
    "worst_flatness_xi",
    "classes",
    *(f"{what}_{split}_examples" for what in ("clean", "robust", "flatness") for split in ("test", "train")),
    "hessian_examples",
)
#: Columns of words; all others hold numbers.
WORDS = ("variant", "checkpoint", "family", "label", "autoattack", "dataset", "robustness_group")

_FLATNESS = re.compile(
    r"(?P<train>train_)?(?P<case>avg|worst)_flatness_(?P<loss>rloss|ce)"
    r"(_(?P<xi>\d+(\.\d+)?(e-?\d+)?))?(_(?P<spread>std|se))?"
)

HISTORY = (
    *("variant", "seed", "epoch", "epochs", "normalised_epoch", "learning_rate", "train_loss"),
    *("train_rloss", "train_rerr", "test_rloss", "test_rerr", "test_correct_rloss"),
    *("test_incorrect_rloss", "early_stopping_rloss", "early_stopping_rerr"),
)
SERIES = (
    *("variant", "seed", "epoch", "normalised_epoch", "test_rloss_pgd", "train_rloss_pgd"),
    *("test_rerr_pgd", "avg_flatness_rloss", "avg_flatness_rloss_se", "worst_flatness_rloss"),
    "hessian_max",
)
LANDSCAPE = (
    *("variant", "seed", "checkpoint", "direction", "normalisation", "scale", "s"),
    *("rloss", "rloss_std"),
)


def is_known_column(name: str) -> bool:
    """Whether `models.csv` may have a column of this name."""
    fixed = {*IDENTITY, *WORDS, *ERRORS, *LOSSES, *HESSIAN, *SETTINGS}
    return name in fixed or name.startswith("setting_") or _FLATNESS.fullmatch(name) is not None


def is_measure(name: str) -> bool:
    """Whether the column holds a measure (an error, a loss, a flatness, an eigenvalue)."""
    return name in {*ERRORS, *LOSSES, *HESSIAN} or _FLATNESS.fullmatch(name) is not None


def radius_columns(
    columns: Iterable[str], case: str, loss: str = "rloss", train: bool = False
) -> dict[float, str]:
    """The columns of one flatness measure at its radii other than the main one: xi -> column.

    `case` is "avg" or "worst", `loss` is "rloss" or "ce"; `train` asks for training examples.
    """
    found = {}
    for name in columns:
        match = _FLATNESS.fullmatch(name)
        if (
            match
            and match["xi"]
            and not match["spread"]
            and (match["case"], match["loss"], bool(match["train"])) == (case, loss, train)
        ):
            found[float(match["xi"])] = name
    return dict(sorted(found.items()))


def all_radii(models: pd.DataFrame, case: str, loss: str = "rloss") -> dict[float, str]:
    """As `radius_columns`, the main radius included where the table says what it is."""
    radii = radius_columns(models.columns, case, loss)
    main, xi = f"{case}_flatness_{loss}", models.get(f"{case}_flatness_xi")
    if main in models and xi is not None and xi.notna().any():
        radii[float(xi.dropna().iloc[0])] = main
    return dict(sorted(radii.items()))


def describe(name: str) -> str:
    """A column in words, as on the axes of the figures.

    >>> describe("avg_flatness_rloss")
    'average-case flatness in RLoss'
    """
    match = _FLATNESS.fullmatch(name)
    if match:
        case = {"avg": "average-case", "worst": "worst-case"}[match["case"]]
        words = f"{case} flatness in {'RLoss' if match['loss'] == 'rloss' else 'CE'}"
        words += " on training examples" if match["train"] else ""
        words += f" (ξ = {float(match['xi']):g})" if match["xi"] else ""
        spread = {"std": "standard deviation of ", "se": "standard error of ", None: ""}
        return spread[match["spread"]] + words
    words = {
        "err": "Err (%)",
        "rerr_pgd": "RErr, PGD (%)",
        "rerr_aa": "RErr, AutoAttack (%)",
        "ce": "CE",
        "rloss_pgd": "RLoss",
        "rloss_aa": "CE on AutoAttack's examples",
        "rloss": "RLoss",
        "rerr": "RErr (%)",
    }
    split, _, measure = name.partition("_")
    if split in ("test", "train") and measure in words:
        return f"{split} {words[measure]}"
    return {
        "rloss": "RLoss along directions in weight space",
        "test_correct_rloss": "test RLoss on examples classified correctly",
        "test_incorrect_rloss": "test RLoss on examples classified incorrectly",
        "hessian_max": "largest Hessian eigenvalue",
        "hessian_min": "smallest Hessian eigenvalue",
        "convexity": "|λmin| / |λmax|",
        "rloss_gap": "RLoss, test minus train",
        "rloss_overfitting": "RLoss, last minus early-stopped",
        "normalised_epoch": "epoch (share of training)",
        "learning_rate": "learning rate",
    }.get(name, name)


def direction(name: str) -> str:
    """What a low value of a column means: "lower is flatter", "lower is more robust", or ""."""
    if "flatness" in name:
        return "lower is flatter" if not name.endswith(("_std", "_se")) else ""
    if "rloss" in name or "rerr" in name:
        return "" if name in ("rloss_gap", "rloss_overfitting") else "lower is more robust"
    return "lower is flatter" if name == "hessian_max" else ""
