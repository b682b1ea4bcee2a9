"""Random changes of valid configs either validate or raise an error that names the field."""

import copy
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robust_flatness.config import ConfigError, TrainingSpec, load_variants, load_yaml
from robust_flatness.experiment import make_experiment

ROOT = Path(__file__).parents[1]
CONFIGS = {name: load_yaml(ROOT / f"config/{name}.yaml") for name in ("digits", "smoke")}
CATALOGUE = load_variants(ROOT / "config/variants.yaml")


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=3),
    st.sampled_from([10**30, 10**4000, 2**63, 0, -1, "8/255", "1/0", "nan", "-inf", "1e999", "9" * 5000]),
    st.sampled_from(["at", "all", "trades-6", "at,at", "reduced", "cyclic", "../..", "\x00", "\ud800", "{}"]),
)  # fmt: skip
GARBAGE = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.text(max_size=5), st.integers(), st.none()), inner, max_size=3),
    ),
    max_leaves=6,
)


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
            field = draw(st.sampled_from([*sorted(TrainingSpec.model_fields), "activation", "x"]))
            override = {draw(st.sampled_from(["set", "scale", "model"])): {field: draw(GARBAGE)}}
            config["overrides"][draw(st.sampled_from([*sorted(CATALOGUE), "x"]))] = override
    return config


def test_mutated_configs_validate_or_name_the_field():
    outcomes = []

    @settings(
        max_examples=300, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(mutated())
    def try_mutation(config):
        try:
            experiment = make_experiment(config, CATALOGUE)
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
