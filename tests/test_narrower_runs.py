"""Which rows of an experiment's table stay when a run asks for fewer variants."""

import copy
import csv
from pathlib import Path

import pytest
from robust_flatness.tables.runs import measure_digest

from robust_flatness import __version__
from robust_flatness.config import load_variants, load_yaml
from robust_flatness.experiment import make_experiment
from robust_flatness.measures.registry import MEASURES
from robust_flatness.workflow import applied_settings, collect_spec, config_digest, other_variants

ROOT = Path(__file__).parents[1]
SMOKE = load_yaml(ROOT / "config/smoke.yaml")
CATALOGUE = load_variants(ROOT / "config/variants.yaml")


def experiment(**changed):
    return make_experiment(copy.deepcopy(SMOKE) | changed, CATALOGUE)


@pytest.fixture
def table(tmp_path):
    """models.csv as a run of the whole experiment leaves it, without the measures."""
    whole, rows = experiment(), []
    for slug in whole.variants:
        for checkpoint in ("last", "best"):
            settings = applied_settings(whole.job_behind(slug))
            row = {"variant": slug, "seed": 0, "checkpoint": checkpoint}
            row |= {f"setting_{name}": value for name, value in settings.items()}
            row |= {"run_config": config_digest(whole), "run_version": __version__}
            for name in whole.measures_of(slug):
                if checkpoint in MEASURES[name].checkpoints:
                    spec = whole.measures[name].for_variant(slug)
                    row[f"run_{name}"] = measure_digest(name, spec.model_dump(mode="json"))
            rows.append(row)
    path = tmp_path / "models.csv"
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, dict.fromkeys(name for row in rows for name in row))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_rows_made_with_the_same_settings_stay(table):
    assert other_variants(experiment(), table) == ([], [])
    narrow = experiment(variants=["at", "trades-6"])
    assert other_variants(narrow, table) == (["unlabeled", "at-scaled-2"], [])
    spec = collect_spec(narrow, ["unlabeled", "at-scaled-2"])
    assert [slug for slug, entry in spec.variants.items() if entry.kept] == ["unlabeled", "at-scaled-2"]
    assert [*spec.variants] == [*collect_spec(experiment()).variants]  # the order of the catalogue


@pytest.mark.parametrize(
    "changed",
    [
        {"training": SMOKE["training"] | {"epochs": 4}},
        {
            "measures": SMOKE["measures"]
            | {"robustness": SMOKE["measures"]["robustness"] | {"test_examples": 29}}
        },
        {"data": SMOKE["data"] | {"train": 61}},
        {"seeds": [0, 1]},
    ],
)
def test_rows_made_with_other_settings_are_named(table, changed):
    narrow = experiment(variants=["at", "trades-6"], **changed)
    assert other_variants(narrow, table) == ([], ["unlabeled", "at-scaled-2"])


def test_an_override_of_one_variant_concerns_it_alone(table):
    overrides = SMOKE["overrides"] | {"unlabeled": {"set": {"momentum": 0.5}}}
    narrow = experiment(variants=["at", "trades-6"], overrides=overrides)
    assert other_variants(narrow, table) == (["at-scaled-2"], ["unlabeled"])


def test_a_table_that_cannot_be_read_keeps_nothing(tmp_path):
    assert other_variants(experiment(), tmp_path / "models.csv") == ([], [])
    (tmp_path / "models.csv").write_bytes(b"\xff")
    assert other_variants(experiment(), tmp_path / "models.csv") == ([], [])
