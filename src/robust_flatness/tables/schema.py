"""The columns of the tables: which there are, what they say in words, what a low value means.

An experiment has these tables under `results/<experiment>/`:

`models.csv`
    one row per variant, seed and checkpoint (`last`, `best`), with every measure (the Hessian's and the
    landscape of the last one alone);
`history.csv`
    one row per variant, seed and epoch: the training curves;
`series.csv`
    one row per variant, seed and snapshot: loss and flatness throughout training;
`landscape.csv`
    one row per variant, direction and point: RLoss along directions in weight space.
"""

from collections.abc import Iterable
from functools import cache

from robust_flatness.tables.columns import Column, Name

TABLES = ("models", "history", "series", "landscape")
CHECKPOINTS = ("last", "best")
KEYS = ("variant", "seed", "checkpoint")
IDENTITY = (*KEYS, "family", "label", "derived", "epoch", "epochs")

#: Family of variants that config/variants.yaml does not know.
OTHER = "other"
#: Family of the RobustBench models in the published tables.
ROBUSTBENCH = "robustbench"

_ROBUST, _FLAT = "lower is more robust", "lower is flatter"


def _examples(what: str, words: str) -> Column:
    return Column(f"{what}_examples", words, kind="setting")


def _flatness(stem: str, words: str, spread: bool) -> Column:
    return Column(stem, words, "flatness", splits="train", radii=True, spread=spread, direction=_FLAT)


#: Columns of `models.csv` by the measure that fills them.
MEASURED: dict[str, tuple[Column, ...]] = {
    "robustness": (
        Column("err", "Err (%)", "error", splits="both"),
        Column("rerr_pgd", "RErr, PGD (%)", "error", splits="both", direction=_ROBUST),
        Column("rerr_aa", "RErr, AutoAttack (%)", "error", splits="both", direction=_ROBUST),
        Column("ce", "CE", "loss", splits="both"),
        Column("rloss_pgd", "RLoss", "loss", splits="both", direction=_ROBUST),
        Column("rloss_aa", "CE on AutoAttack's examples", "loss", splits="both", direction=_ROBUST),
        Column("autoattack", "AutoAttack's budget", "word"),
        _examples("clean_test", "test examples, clean"),
        _examples("clean_train", "training examples, clean"),
        _examples("robust_test", "test examples, attacked"),
        _examples("robust_train", "training examples, attacked"),
    ),
    "flatness": (
        _flatness("avg_flatness_rloss", "average-case flatness in RLoss", True),
        _flatness("worst_flatness_rloss", "worst-case flatness in RLoss", False),
        _flatness("avg_flatness_ce", "average-case flatness in CE", True),
        _flatness("worst_flatness_ce", "worst-case flatness in CE", False),
        Column("avg_flatness_xi", "radius of average-case flatness", "setting"),
        Column("worst_flatness_xi", "radius of worst-case flatness", "setting"),
        _examples("flatness_test", "test examples, flatness"),
        _examples("flatness_train", "training examples, flatness"),
    ),
    "hessian": (
        Column("hessian_max", "largest Hessian eigenvalue", direction=_FLAT),
        Column("hessian_min", "smallest Hessian eigenvalue"),
        Column("convexity", "|λmin| / |λmax|"),
        _examples("hessian", "held-out examples, Hessian"),
    ),
    "landscape": (_examples("landscape", "test examples, landscape"),),
}

#: What is neither measured nor a key: words and settings of a row of `models.csv`.
OTHERS = (
    Column("family", "family", "word"),
    Column("label", "label", "word"),
    Column("dataset", "dataset", "word"),
    Column("robustness_group", "group by robustness", "word"),
    Column("classes", "number of classes", "setting"),
)
#: What is computed from the columns of one variant.
DIFFERENCES = (
    Column("rloss_gap", "RLoss, test minus train"),
    Column("rloss_overfitting", "RLoss, last minus early-stopped"),
)
#: Quantities of the curves alone.
CURVES = (
    Column("rloss", "RLoss", "loss", splits="both", direction=_ROBUST),
    Column("rerr", "RErr (%)", "error", splits="both", direction=_ROBUST),
    Column("test_correct_rloss", "test RLoss on examples classified correctly", "loss", direction=_ROBUST),
    Column("test_incorrect_rloss", "test RLoss on examples classified incorrectly", "loss", direction=_ROBUST),
    Column("early_stopping_rloss", "early-stopping RLoss", "loss", direction=_ROBUST),
    Column("early_stopping_rerr", "early-stopping RErr (%)", "error", direction=_ROBUST),
    Column("normalised_epoch", "epoch (share of training)"),
    Column("learning_rate", "learning rate"),
)
ALONG_DIRECTIONS = Column("rloss", "RLoss along directions in weight space", "loss", direction=_ROBUST)

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

_MODELS = (*(column for columns in MEASURED.values() for column in columns), *OTHERS)


def _named(kind: str) -> tuple[str, ...]:
    columns = [column for column in _MODELS if column.kind == kind]
    return tuple(
        column.name(split)
        for split in ("test", "train")
        for column in columns
        if split == "test" or column.splits == "both"
    )


#: Names of `models.csv` at the main radius, by kind; flatness on test examples alone.
ERRORS, LOSSES, FLATNESS = _named("error"), _named("loss"), _named("flatness")
HESSIAN = tuple(column.stem for column in MEASURED["hessian"] if column.is_measure)
SETTINGS = _named("setting")
#: Columns of text; all others hold numbers, but for the settings of trainings, which may be either.
WORDS = ("variant", "checkpoint", "direction", "normalisation", *_named("word"))


@cache
def parse_name(name: str) -> Name | None:
    """A column of `models.csv` in its parts; None where no measure has such a column."""
    return next(filter(None, (column.parse(name) for column in _MODELS)), None)


def is_known_column(name: str) -> bool:
    """Whether `models.csv` has a column of this name by itself."""
    known = parse_name(name)
    own = known is not None and not known.best and not known.seeds
    return own or name in IDENTITY or name.startswith("setting_")


def is_measure(name: str) -> bool:
    """Whether the column holds a measure (an error, a loss, a flatness, an eigenvalue)."""
    known = parse_name(name)
    return known is not None and known.column.is_measure and not known.best and not known.seeds


def radius_columns(
    columns: Iterable[str], case: str, loss: str = "rloss", train: bool = False
) -> dict[float, str]:
    """The columns of one flatness measure at its radii other than the main one: xi -> column.

    `case` is "avg" or "worst", `loss` is "rloss" or "ce"; `train` asks for training examples.
    """
    stem, split = f"{case}_flatness_{loss}", "train" if train else "test"
    found = {}
    for name in columns:
        known = parse_name(name)
        if known is not None and known.xi is not None and not (known.spread or known.best or known.seeds):
            if (known.column.stem, known.split) == (stem, split):
                found[known.xi] = name
    return dict(sorted(found.items()))


def describe(name: str) -> str:
    """A column in words, as on the axes of the figures; a name that is not known as it is.

    >>> describe("avg_flatness_rloss"), describe("train_worst_flatness_ce")
    ('average-case flatness in RLoss', 'worst-case flatness in CE on training examples')
    """
    known = _known(name)
    return known.words if known else name


def direction(name: str) -> str:
    """What a low value of a column means: "lower is flatter", "lower is more robust", or ""."""
    known = _known(name)
    return known.direction if known else ""


@cache
def _known(name: str) -> Name | None:
    columns = (*_MODELS, *CURVES, *DIFFERENCES, ALONG_DIRECTIONS)
    return next(filter(None, (column.parse(name) for column in columns)), None)
