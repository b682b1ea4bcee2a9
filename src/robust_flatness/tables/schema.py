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
    one row per variant, direction and point: RLoss along directions in weight space;
`examples.csv`
    one row per variant, seed, checkpoint (of the baseline also its snapshots), split and example;
`layers.csv`
    where `layers` is measured: one row per variant, seed and layer: flatness with it alone perturbed.
"""

from collections.abc import Iterable

from robust_flatness.measures.registry import MEASURES
from robust_flatness.tables.columns import MORE_ROBUST, Column, Name
from robust_flatness.tables.runs import PREFIX

#: The tables of every experiment, and those of measures that few experiments have.
TABLES = ("models", "history", "series", "landscape", "examples")
OF_MEASURES = tuple(name for name, entry in MEASURES.items() if entry.rows and name not in TABLES)
KEYS = ("variant", "seed", "checkpoint")
IDENTITY = (*KEYS, "family", "label", "derived", "epoch", "epochs")

#: Family of variants that config/variants.yaml does not know.
OTHER = "other"
#: Of an example: robust loss by PGD; misclassified under PGD and under AutoAttack, 0 or 1.
OF_EXAMPLES = ("rloss", "rerr_pgd", "rerr_aa")
EXAMPLES = (*KEYS, "split", "example", *OF_EXAMPLES)

#: What is neither measured nor a key: words and settings of a row of `models.csv`.
OTHERS = (
    Column("family", "family", "word"),
    Column("label", "label", "word"),
    Column("dataset", "dataset", "word"),
    Column("robustness_group", "group by robustness", "word"),
    Column("classes", "number of classes", "setting"),
    Column("not_finite", "measures that are infinite or no number", "word"),
    Column("same_as", "variant that is the same model", "word"),
    Column("external", "network of others, not trained here (1)", "setting"),
)
#: What is computed from the columns of one variant.
DIFFERENCES = (
    Column("rloss_gap", "RLoss, test minus train"),
    Column("rerr_gap", "RErr by PGD, test minus train (%)"),
    Column("rloss_overfitting", "RLoss, last minus early-stopped"),
)
#: Quantities of the curves alone.
CURVES = (
    Column("rloss", "RLoss", "loss", splits="both", direction=MORE_ROBUST),
    Column("rerr", "RErr (%)", "error", splits="both", direction=MORE_ROBUST),
    Column(
        "test_correct_rloss", "test RLoss on examples classified correctly", "loss", direction=MORE_ROBUST
    ),
    Column(
        "test_incorrect_rloss", "test RLoss on examples classified incorrectly", "loss", direction=MORE_ROBUST
    ),
    Column("early_stopping_rloss", "early-stopping RLoss", "loss", direction=MORE_ROBUST),
    Column("early_stopping_rerr", "early-stopping RErr (%)", "error", direction=MORE_ROBUST),
    Column("normalised_epoch", "epoch (share of training)"),
    Column("learning_rate", "learning rate"),
)
ALONG_DIRECTIONS = Column("rloss", "RLoss along directions in weight space", "loss", direction=MORE_ROBUST)

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


def _model_columns() -> tuple[Column, ...]:
    """Every quantity of `models.csv`: those of the measures, in the order of the registry, and the others."""
    return (*(column for measure in MEASURES.values() for column in measure.columns), *OTHERS)


def _named(kind: str) -> tuple[str, ...]:
    """Names at the main radius; flatness on test examples alone."""
    columns = [column for column in _model_columns() if column.kind == kind and column.alone]
    return tuple(
        column.name(split)
        for split in ("test", "train")
        for column in columns
        if split == "test" or column.splits == "both"
    )


ERRORS, LOSSES, FLATNESS, SETTINGS = map(_named, ("error", "loss", "flatness", "setting"))
HESSIAN = tuple(column.stem for column in MEASURES["hessian"].columns if column.is_measure)
#: Columns of text; all others hold numbers, but for the settings of trainings, which may be either.
WORDS = ("variant", "checkpoint", "split", "direction", "normalisation", "layer", *_named("word"))


def tables_of(measures: Iterable[str]) -> tuple[str, ...]:
    """The tables of an experiment with these measures."""
    measures = {*measures}
    return (*TABLES, *(name for name in OF_MEASURES if name in measures))


def compared() -> tuple[str, ...]:
    """What the table of correlations sets against RLoss and RErr, on test examples."""
    return tuple(column.name() for column in _model_columns() if column.compared)


def parse_name(name: str) -> Name | None:
    """A column of `models.csv` in its parts; None where no measure has such a column."""
    return next(filter(None, (column.parse(name) for column in _model_columns())), None)


def is_known_column(name: str) -> bool:
    """Whether `models.csv` has a column of this name by itself."""
    known = parse_name(name)
    own = known is not None and not known.best and not known.seeds
    return own or name in IDENTITY or name.startswith(("setting_", PREFIX))


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
    named = [(name, parse_name(name)) for name in columns]
    found = {
        known.xi: name
        for name, known in named
        if known and known.column.stem == stem and known.xi and known == Name(known.column, split, known.xi)
    }
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


def is_number(name: str) -> bool:
    """Whether a column of any table that is known holds numbers."""
    known = _known(name)
    if known is None:
        return name in {*IDENTITY, *HISTORY, *SERIES, *LANDSCAPE, *EXAMPLES} - {*WORDS}
    return known.column.kind != "word"


def _known(name: str) -> Name | None:
    columns = (*_model_columns(), *CURVES, *DIFFERENCES, ALONG_DIRECTIONS)
    return next(filter(None, (column.parse(name) for column in columns)), None)
