"""Configs: forms of numbers and lists, implied settings, variants, and the messages for bad input."""

import copy
import itertools
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from robust_flatness.config import AutoAttackSpec, ConfigError, load_variants, load_yaml, parse
from robust_flatness.config.training import rescaled_decay
from robust_flatness.config.values import parse_number
from robust_flatness.experiment import Experiment, load_experiment, make_experiment
from robust_flatness.measures.registry import MEASURES

ROOT = Path(__file__).parents[1]
CONFIGS = {name: load_yaml(ROOT / f"config/{name}.yaml") for name in ("digits", "smoke")}
VARIANTS = ROOT / "config/variants.yaml"
CATALOGUE = load_variants(VARIANTS)


def load(values) -> Experiment:
    """As `load_experiment`, with the catalogue read once for all tests."""
    return make_experiment(values, CATALOGUE)


def digits(**changed):
    """The digits' config, of all variants, with values at dotted paths replaced (None: removed)."""
    config = copy.deepcopy(CONFIGS["digits"]) | {"variants": "all"}
    for path, value in changed.items():
        *folders, name = path.split("__")
        place = config
        for folder in folders:
            place = place.setdefault(folder, {})
        if value is None:
            del place[name]
        else:
            place[name] = value
    return config


@pytest.mark.parametrize(
    ("text", "number"),
    [("8/255", 8 / 255), ("1e-3", 1e-3), ("0.15/4", 0.0375), (" 7 ", 7), ("-2", -2), (0.5, 0.5)],
)
def test_fractions_and_text_are_numbers(text, number):
    assert parse_number(text) == number


@pytest.mark.parametrize("text", ["8/255/2", "abc", "", "/", "1/", "1/0", "0x10", "1,5"])
def test_other_text_is_left_for_the_validation(text):
    assert parse_number(text) == text


def test_text_from_the_command_line_is_parsed():
    """Snakemake's --config passes text, with commas between the items of a list."""
    as_text = digits(epsilon="51/255", seeds="0,1", variants="at,trades-6", training__learning_rate="5e-2")
    spec = load(as_text).spec
    assert spec.epsilon == 51 / 255
    assert spec.seeds == (0, 1)
    assert spec.variants == ("at", "trades-6")
    assert load(as_text).train_jobs["at"].training.learning_rate == 0.05
    assert load(digits(seeds=3)).spec.seeds == (3,)
    assert load(digits(variants="at")).spec.variants == ("at",)
    assert load(digits(variants=["all"])).spec.variants == "all"


def test_equal_settings_give_equal_json_in_any_order():
    config = digits()
    shuffled = dict(reversed(config.items())) | {"training": dict(reversed(config["training"].items()))}
    assert load(config).train_job("at", 0).json_text() == load(shuffled).train_job("at", 0).json_text()
    config = digits(training__step_size="0.15/4")
    slashed = digits(training__step_size=0.0375)
    assert load(config).train_job("at", 0).json_text() == load(slashed).train_job("at", 0).json_text()


EXPERIMENTS = [path.stem for path in sorted(ROOT.glob("config/*.yaml")) if "data" in load_yaml(path)]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_settings_of_jobs_read_back_as_the_same_spec(name):
    experiment = load(load_yaml(ROOT / f"config/{name}.yaml"))
    specs = [settings.for_variant("at") for settings in experiment.measures.values()]
    for spec in [*specs, *experiment.train_jobs.values(), experiment.spec.data]:
        assert type(spec).model_validate_json(spec.json_text()).json_text() == spec.json_text()


def test_the_baseline_may_have_more_seeds():
    experiment = load(digits(seeds=[7], baseline_seeds="0,1,2"))
    assert experiment.seeds_of("at") == (0, 1, 2)
    assert experiment.seeds_of("trades-6") == (7,)
    assert load(digits(seeds=[7], baseline_seeds=None)).seeds_of("at") == (7,)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_published_variant_is_known_and_no_two_come_out_equal(name):
    import csv

    with open(ROOT / "paper_tables/published/variants.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    column = next(column for column in ("variant", "slug") if column in rows[0])
    published = {row[column] for row in rows}
    assert len(published) == 74
    experiment = load(CONFIGS[name] | {"variants": "all"})
    assert published <= experiment.variants.keys()
    texts = {job.model_copy(update={"variant": ""}).json_text() for job in experiment.train_jobs.values()}
    assert len(texts) == len(experiment.train_jobs) == 74


def test_variants_are_changes_of_the_baseline():
    jobs = {slug: job.training for slug, job in load(digits()).train_jobs.items()}
    at = jobs["at"]
    assert jobs["learning-rate-0.2"].learning_rate == 4 * at.learning_rate
    assert jobs["cyclic-1"].epochs == at.epochs // 5
    assert jobs["weight-decay-0"].weight_decay == 0
    assert jobs["epsilon-9"].epsilon == pytest.approx(9 / 8 * at.epsilon, rel=1e-15)
    assert jobs["epsilon-9"].evaluation_epsilon == at.epsilon
    assert (jobs["pgd-14"].steps, jobs["pgd-5"].steps) == (14, 5)
    assert {job.evaluation_steps for job in jobs.values()} == {7}
    assert jobs["trades-6"].model_dump() == {
        **at.model_dump(),
        "objective": "trades",
        "objective_weight": 6,
    }


def test_weight_averaging_forgets_its_start_and_keeps_the_published_decays_apart():
    for steps in (100, 320, 1800):
        decays = [rescaled_decay(decay, steps) for decay in (0.98, 0.985, 0.99, 0.9975)]
        assert decays[-1] ** steps == pytest.approx(0.01)
        memories = [1 / (1 - decay) for decay in decays]
        assert memories[3] > 2 * memories[2]
        assert memories == sorted(memories)
    assert rescaled_decay(0.98, 58650) == 0.98
    assert rescaled_decay(0.9975, 2000) == 0.9975
    experiment = load(digits())
    training = experiment.train_jobs["weight-averaging-0.98"].training
    steps = training.epochs * math.ceil(experiment.spec.data.train / training.batch_size)
    assert training.weight_averaging == rescaled_decay(0.98, steps)


def test_batch_sizes_are_bounded_by_the_training_images():
    """Four times 32 is 128, but there are 96 images."""
    experiment = load(digits())
    assert experiment.train_job("batch-size-512", 0).training.batch_size == experiment.spec.data.train == 96


def test_batch_sizes_have_a_lower_bound():
    experiment = load(digits(minimum_batch_size=16, variants=["batch-size-8"], overrides=None))
    assert experiment.train_jobs["batch-size-8"].training.batch_size == 16
    with pytest.raises(ConfigError, match="'batch-size-8' and 'batch-size-16' come out equal"):
        load(digits(minimum_batch_size=16, variants=["batch-size-8", "batch-size-16"], overrides=None))


@pytest.mark.parametrize("epochs", [1, 2, 3, 11, 12, 13, 30, 60, 150])
def test_snapshots_are_many_even_and_include_the_last_epoch(epochs):
    spec = load(digits(variants=["at"], training__epochs=epochs)).train_jobs["at"].training
    taken = spec.snapshot_epochs()
    assert taken[0] == 0
    assert taken[-1] == epochs - 1
    assert len(taken) >= min(spec.snapshots, epochs)
    assert len({b - a for a, b in itertools.pairwise(taken[:-1])}) <= 1


def test_an_override_replaces_a_scaled_value():
    experiment = load(digits(overrides__adam={"set": {"learning_rate": 0.003}}))
    assert experiment.train_jobs["adam"].training.learning_rate == 0.003
    assert experiment.train_jobs["adam"].training.optimizer == "adam"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a/b: {label: x, family: y}", ["a/b", "letters"]),
        ("1: {label: x, family: y}", ["variants.1", "string"]),
        ("a: {label: x}", ["a.family", "required"]),
        ("a: [1]", ["a", "dictionary"]),
        ("a: {label: x, family: y, derived_from: b, convolution_scale: 2}", ["a.derived_from", "'b'"]),
        ("a: {label: x, family: y, derived_from: b}", ["variants.a", "convolution_scale"]),
        ("a: {label: x, family: y, scale: {epochs: -1}}", ["a.scale.epochs", "-1"]),
    ],
)
def test_a_bad_entry_of_the_catalogue_is_named(tmp_path, content, words):
    path = tmp_path / "variants.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as error:
        load_variants(path)
    assert all(word in str(error.value) for word in [str(path), *words]), error.value


#: Field of a valid config, bad value (None: removed), and parts of the message beside the field's name.
BAD = [
    ("variants", ["nope"], "unknown variant 'nope'", "trades-6"),
    ("variants", ["trade-6"], "'trade-6', did you mean 'trades-6'?"),
    ("variants", ["at-scaled-2"], "'at-scaled-2' is derived from 'at'"),
    ("overrides.nope", {}, "overrides: unknown variant 'nope'"),
    ("overrides.at", {"set": {"momentun": 1}}, "variant 'at'.momentun", "did you mean 'momentum'?"),
    ("overrides.at", {"scale": {"momentun": 1}}, "scale.momentun", "did you mean 'momentum'?"),
    ("overrides.at", {"set": {"epochs": None}}, "variant 'at'.epochs", "integer"),
    ("overrides.at", {"scale": {"epochs": 1e308}}, "scale.epochs", "too large"),
    ("overrides.at", {"scale": {"milestones": 2}}, "scale.milestones", "not a number"),
    ("overrides.trades-6", {"scale": {"objective_weight": 2}}, "objective_weight", "sets 6", "under set"),
    ("measure", {}, "unknown field", "did you mean 'measures'?"),
    ("merge", ["results/other"], "unknown field"),
    ("measures.robustnes", {}, "measures.robustnes", "did you mean 'robustness'?", "flatness"),
    ("measures.flatness.average.sample", 3, "average.sample", "did you mean 'samples'?", "scope"),
    ("measures.flatness.average.samples", 0, "measures.flatness.average.samples", "equal to 1"),
    ("measures.flatness.worst.xi", [0.5, "1/2"], "measures.flatness.worst.xi", "each once"),
    ("measures.flatness.attack", {"epsilon": 0.1, "step_size": 0.02}, "attack.epsilon", "0.1", "0.05"),
    ("measures.hessian.eigenvalues", 1, "measures.hessian.eigenvalues", "equal to 2"),
    ("measures.robustness.test_examples", 501, "501 examples", "data.test has 500"),
    ("measures.landscape.examples", 501, "501 examples", "data.test has 500"),
    ("measures.robustness.autoattack.target_classes", 10, "at most 9"),
    ("measures.series.variants", ["nope"], "measures.series.variants", "'nope'"),
    ("measures.series.variants", ["at", "at-scaled-2"], "'at-scaled-2'", "trained variants"),
    ("measures.series.hessian.variants", ["at", "nope"], "measures.series.hessian.variants", "'nope'"),
    ("data.name", "mnist", "data.name", "'mnist'", "'npz', 'folder' or 'torchvision:NAME'"),
    ("data.name", "npz", "path", "npz"),
    ("data.test", 1500, "test", "1797"),
    ("data.classes", 5, "classes: 5", "10"),
    ("data.unlabeled", 0, "variant 'unlabeled'", "data.unlabeled"),
    ("data", None, "missing", "results_table"),
    ("model.name", "vgg", "model.name", "'vgg'", "'resnet18', 'small-resnet'"),
    ("model.activation", "tanh", "model.activation", "'tanh'", "'relu'"),
    ("training.objective", "losses:", "package.module:Class"),
    ("training.objective", "gan", "'gan'", "'trades'"),
    ("training.epoch", 3, "training.epoch", "unknown field", "'epochs'?", "batch_size"),
    ("training.step_size", 0, "training.step_size", "greater than 0"),
    ("training.steps", 1.5, "training.steps", "integer", "1.5"),
    ("training.batch_size", 1, "training.batch_size", "equal to 2"),
    ("epsilon", 0, "greater than 0"),
    ("epsilon", 8, "less than or equal to 1", "8"),
    ("epsilon", math.nan, "finite", "nan"),
    ("seeds", [0, "0"], "each once"),
    ("seeds", [], "at least 1 item"),
    ("seeds", [-1], "seeds.0", "equal to 0", "-1"),
    ("experiment", "../x", "'../x'", "letters"),
    ("experiment", "x" * 101, "at most 100"),
    ("experiment", None, "required"),
    ("compute", {"device": "tpu"}, "compute.device", "'tpu'", "cuda:N"),
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad[0])
def test_errors_name_field_value_and_what_is_allowed(bad):
    field, value, *words = bad
    with pytest.raises(ConfigError) as error:
        load(digits(**{field.replace(".", "__"): value}))
    section = field.split(".")[0]
    expected = words if section == "overrides" else [section, *words]
    assert all(word in str(error.value) for word in expected), error.value


def test_a_measure_applies_to_the_variants_it_names_or_to_all_possible():
    experiment = load(CONFIGS["smoke"])
    assert experiment.measured_by("hessian") == ["at", "at-scaled-2"]
    assert experiment.measured_by("robustness") == list(experiment.variants)
    everywhere = copy.deepcopy(CONFIGS["smoke"])
    for block in everywhere["measures"].values():
        block.pop("variants", None)
    everywhere = load(everywhere)
    assert everywhere.measured_by("landscape") == list(experiment.variants)
    assert everywhere.measured_by("series") == ["at", "trades-6", "unlabeled"]  # what has snapshots
    del (without := copy.deepcopy(CONFIGS["smoke"]))["measures"]["hessian"]
    assert load(without).measured_by("hessian") == []


def test_variants_of_a_measure_are_not_part_of_its_jobs_settings():
    series = load(CONFIGS["smoke"]).measures["series"]
    assert "variants" not in series.json_text()
    assert series.for_variant("at").hessian is not None
    assert series.for_variant("trades-6").hessian is None
    more = copy.deepcopy(CONFIGS["smoke"])
    more["measures"]["series"]["variants"] = ["at", "trades-6", "unlabeled"]
    for slug in ("at", "trades-6"):
        spec = load(more).measures["series"].for_variant(slug)
        assert spec.json_text() == series.for_variant(slug).json_text()


def problems(config) -> list[str]:
    """Return the fields named in the message, one for each line."""
    with pytest.raises(ConfigError) as error:
        load(config)
    return [line.split(":")[0] for line in str(error.value).splitlines()]


def test_all_problems_of_the_fields_are_reported_at_once():
    config = digits(
        epsilon=0,
        data__train=0,
        model__name="vgg",
        training__learning_rate=-1,
        measures__flatness__average__samples=0,
        own_variants={"b/c": {"label": "x", "family": "y"}},
    )
    assert {*problems(config)} == {
        *("epsilon", "data.train", "model.name", "training.learning_rate"),
        *("measures.flatness.average.samples", "own_variants.b/c"),
    }


def test_all_problems_of_names_are_reported_at_once():
    config = digits(
        variants=["trade-6"], overrides__nope={}, own_variants={"at": {"label": "x", "family": "y"}}
    )
    assert {*problems(config)} == {"variants", "overrides", "own_variants.at"}


def test_all_problems_of_jobs_are_reported_at_once():
    config = digits(
        measures__landscape__examples=10_000,
        measures__robustness__test_examples=501,
        measures__series__variants=["nope"],
        overrides__at={"set": {"epochs": 0}},
        **{"overrides__trades-6": {"set": {"lr": 1}}},
    )
    assert problems(config) == [
        "measures.robustness.test_examples",
        "measures.landscape.examples",
        "measures.series.variants",
        "variant 'at'.epochs",
        "variant 'trades-6'.lr",
    ]


TEN_LINES = """
experiment: mine
epsilon: 0.2
data: {name: digits, train: 96, early_stopping: 200, test: 500}
model: {name: small-resnet, width: 16}
training: {epochs: 30, batch_size: 32, learning_rate: 0.3}
variants: [at, trades-6, mine]
own_variants:
  mine: {label: Mine, family: mine, set: {objective: trades, objective_weight: 2}}
families:
  mine: {label: My loss, color: orange, marker: D}
"""


def test_settings_follow_from_ten_lines():
    experiment = load(yaml.safe_load(TEN_LINES))
    assert len(TEN_LINES.strip().splitlines()) == 10
    assert list(experiment.measures) == list(MEASURES)
    for name in ("robustness", "flatness"):
        attack = experiment.measures[name].attack
        assert (attack.epsilon, attack.step_size, attack.steps, attack.restarts) == (0.2, 0.05, 20, 10)
        assert experiment.measures[name].test_examples == 500
        assert experiment.measures[name].train_examples == 96
        assert experiment.measured_by(name) == ["at", "trades-6", "mine"]
    assert experiment.measured_by("series") == experiment.measured_by("landscape") == ["at"]
    job = experiment.train_job("mine", 0).training
    assert (job.objective, job.objective_weight, job.step_size) == ("trades", 2, 0.05)
    assert experiment.spec.families["mine"].color == "orange"


def test_the_experiments_of_the_readme_can_be_run():
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "config/README.md").read_text(), re.DOTALL)
    first, more, networks = map(yaml.safe_load, blocks)
    assert load(first).measured_by("robustness") == ["at", "trades-6", "awp-0.01"]
    assert load(first | more).train_job("brier", 0).training.objective == "my_losses:Brier"
    assert [*load(first | networks).networks] == ["mine", "wong", "counted"]


def test_sizes_follow_from_ranges_too():
    values = yaml.safe_load(TEN_LINES)
    ranges = {"train": ["train 0-299"], "early_stopping": 100, "test": ["test 0-49", "test 100-149"]}
    experiment = load(values | {"data": {"name": "fashion", **ranges}})
    spec = experiment.measures["robustness"]
    assert (spec.test_examples, spec.clean_train_examples) == (100, 300)


def test_a_block_given_in_part_keeps_the_other_defaults():
    values = yaml.safe_load(TEN_LINES)
    values["training"]["step_size"] = "0.2/8"
    values["measures"] = {
        "series": {"attack": {"steps": 5}, "average": {"samples": 2}},
        "flatness": {"attack": {"step_size": 0.1}},
    }
    experiment = load(values)
    assert list(experiment.measures) == ["robustness", "flatness", "series"]
    assert experiment.measures["robustness"].attack.step_size == 0.025
    series, flatness = experiment.measures["series"], experiment.measures["flatness"]
    assert (series.attack.step_size, series.attack.steps, series.attack.restarts) == (0.025, 5, 1)
    assert (series.average.samples, series.average.xi) == (2, (0.5,))
    assert (flatness.attack.step_size, flatness.attack.steps) == (0.1, 20)
    assert experiment.train_job("at", 0).training.evaluation_step_size == 0.025


def test_standard_autoattack_has_a_fixed_budget():
    with pytest.raises(ConfigError, match=r"iterations: .*version: reduced"):
        parse(AutoAttackSpec, {"iterations": 5})
    assert AutoAttackSpec().description == "AutoAttack (standard)"
    reduced = AutoAttackSpec(version="reduced", attacks=["apgd-ce"], iterations=5)
    assert "reduced" in reduced.description
    assert "apgd-ce" in reduced.description


@pytest.mark.parametrize(
    "content",
    [b"", b"[1, 2]", b"text", b"a: [", b"\xff\xfe", b"a: 2001-99-99", b"x: " + b"9" * 5000],
)
def test_files_without_a_config_are_refused(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        load_experiment(load_yaml(path), VARIANTS)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: 'a' is given twice"),
        ("models:\n  x: {model: 'a:b'}\n  x: {model: 'c:d'}\n", "line 3: 'x' is given twice"),
        ("a: [\n", "not valid YAML, line 2"),
    ],
)
def test_yaml_errors_name_the_line(tmp_path, content, words):
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(ConfigError, match=words):
        load_yaml(tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match=r"missing\.yaml: cannot be read"):
        load_yaml(tmp_path / "missing.yaml")


def test_merged_keys_may_be_replaced(tmp_path):
    (tmp_path / "config.yaml").write_text("a: &a {b: 1, c: 2}\nd: {<<: *a, b: 3}\n")
    assert load_yaml(tmp_path / "config.yaml")["d"] == {"b": 3, "c": 2}


def test_validation_imports_neither_torch_nor_numpy():
    code = (
        "import sys; from pathlib import Path; import robust_flatness.config as c; "
        "import robust_flatness.experiment as e; "
        "e.load_experiment(c.load_yaml(Path('config/digits.yaml'))); "
        "print([m for m in ('torch', 'numpy', 'sklearn', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "mart", "label_smoothing": 0.1},
        {"objective": "trades", "attack_predicted_label": True},
        {"objective": "self-supervision", "stop_after_flip": 1},
        {"objective": "self-supervision", "attack_incorrect": False},
        {"adversarial_fraction": 0.5},
        {"optimizer": "entropy-sgd"},
    ],
)
def test_settings_that_exclude_each_other_are_refused(settings):
    values = digits()
    values["overrides"] = {"at": {"set": settings}}
    with pytest.raises(ConfigError, match="variant 'at'"):
        load(values)


def test_autoattack_that_needs_more_classes_is_refused():
    two = {"name": "npz", "path": "k.npz", "classes": 2, "train": 60, "early_stopping": 40, "test": 60}
    values = load_yaml(ROOT / "config/smoke.yaml") | {"data": two, "variants": ["at"]}
    values["measures"] = {"robustness": {"autoattack": {"version": "standard"}}}
    with pytest.raises(
        ConfigError, match=r"robustness\.autoattack\.attacks: apgd-t needs at least 4 classes"
    ):
        load_experiment(values, ROOT / "config/variants.yaml")
