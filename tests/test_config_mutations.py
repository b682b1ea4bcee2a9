"""Random changes of valid configs either validate or raise an error that names the field."""

import copy
import math
import random
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robust_flatness.config import ConfigError, TrainingSpec, load_variants, load_yaml
from robust_flatness.experiment import Experiment, make_experiment

ROOT = Path(__file__).parents[1]
CONFIGS = {name: load_yaml(ROOT / f"config/{name}.yaml") for name in ("digits", "smoke")}
CATALOGUE = load_variants(ROOT / "config/variants.yaml")


def load(values) -> Experiment:
    return make_experiment(values, CATALOGUE)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**30, -(10**30), 10**400, 10**4000, 2**63, 0, -1, 1]),
    st.floats(),
    st.sampled_from(
        ["1e-3", "8/255", "1/0", "nan", "inf", "-inf", "1e999", "9" * 5000, "at", "all", "trades-6"]
    ),
    st.text(max_size=8),
    st.sampled_from(
        ["at,at", "standard", "reduced", "cyclic", "batch", "npz", "../..", "\x00", "\ud800", "=", "{}"]
    ),
    st.binary(max_size=3),
)
GARBAGE = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.text(max_size=5), st.integers(), st.none()), inner, max_size=3),
    ),
    max_leaves=6,
)
TRAINING_FIELDS = sorted(TrainingSpec.model_fields)
SLUGS = sorted(CATALOGUE)


def places(value, path=()):
    """Paths of all values in a config."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


PLACES = {name: list(places(config)) for name, config in CONFIGS.items()}


@st.composite
def mutated(draw):
    """A valid config with one to three fields replaced, deleted or renamed, or a variant overridden."""
    name = draw(st.sampled_from(sorted(CONFIGS)))
    config = copy.deepcopy(CONFIGS[name])
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(PLACES[name]))
        holder = config
        try:
            for key in path[:-1]:
                holder = holder[key]
            value = holder[path[-1]]
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change removed it
        change = draw(st.sampled_from(["replace", "scalar", "delete", "rename", "override"]))
        if change == "replace":
            holder[path[-1]] = draw(st.one_of(GARBAGE, st.just([value]), st.just({"x": value})))
        elif change == "scalar":
            holder[path[-1]] = draw(st.one_of(st.floats(-2, 2), st.integers(-3, 2000)))
        elif change == "delete":
            del holder[path[-1]]
        elif change == "rename" and isinstance(holder, dict):
            holder[draw(st.one_of(st.text(max_size=6), st.integers()))] = holder.pop(path[-1])
        elif change == "override" and isinstance(config.setdefault("overrides", {}), dict):
            field = draw(st.sampled_from([*TRAINING_FIELDS, "activation", "dropout", "x"]))
            override = {draw(st.sampled_from(["set", "scale", "model"])): {field: draw(GARBAGE)}}
            config["overrides"][draw(st.sampled_from([*SLUGS, "x"]))] = override
    return config


def test_mutated_configs_validate_or_name_the_field():
    outcomes = []

    @settings(
        max_examples=1000, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(mutated())
    def try_mutation(config):
        try:
            experiment = load(config)
            # what planning does with a valid config
            for slug in experiment.train_jobs:
                experiment.train_job(slug, experiment.spec.seeds[0]).json_text()
            outcomes.append("accepted")
        except ConfigError as error:
            outcomes.append("refused")
            message = str(error)
            assert ":" in message.splitlines()[0]  # the field comes first
            assert len(message) < 20_000
            assert " object at 0x" not in message

    try_mutation()
    assert 0.3 < outcomes.count("refused") / len(outcomes) < 0.98


def test_every_single_field_removed_or_replaced_is_accepted_or_named():
    """Every place of both configs is removed or replaced by values of another kind."""
    rng = random.Random(0)
    for name, config in CONFIGS.items():
        for path in PLACES[name]:
            for value in rng.sample([None, "x", -1, [], {}, math.nan, True, 10**400], 3):
                changed = copy.deepcopy(config)
                holder = changed
                for key in path[:-1]:
                    holder = holder[key]
                if value is None:
                    del holder[path[-1]]
                else:
                    holder[path[-1]] = value
                try:
                    load(changed)
                except ConfigError as error:
                    # the message names the field, its section, or the variant that it is set for
                    message = str(error)
                    if "come out equal" in message:  # two variants, which are named
                        continue
                    named = [part for part in path if isinstance(part, str)]
                    assert any(part in message for part in named[-3:]), (path, value, message)
