"""Configs: forms of numbers and lists, implied settings, variants, and the messages for bad input."""

import copy
import csv
import functools
import itertools
import json
import math
import operator
import os
import random
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from robust_flatness import workflow
from robust_flatness.config import ConfigError, DataSpec, load_variants, load_yaml
from robust_flatness.config.kinds import source_digest, source_files
from robust_flatness.config.training import rescaled_decay
from robust_flatness.config.values import Integer, Real, parse
from robust_flatness.experiment import Experiment, ExperimentSpec, load_experiment
from robust_flatness.measures.registry import MEASURES
from robust_flatness.tables.collect import fingerprint
from robust_flatness.training.objectives import Objective

ROOT = Path(__file__).parents[1]
CONFIGS = {name: load_yaml(ROOT / f"config/{name}.yaml") for name in ("digits", "smoke")}
VARIANTS = ROOT / "config/variants.yaml"
CATALOGUE = load_variants(VARIANTS)


def measured_by(experiment, measure) -> list[str]:
    """The variants that a measure applies to."""
    return [slug for slug in experiment.variants if measure in experiment.measures_of(slug)]


def load(values) -> Experiment:
    """As `load_experiment`, with the catalogue read once for all tests."""
    return Experiment(parse(ExperimentSpec, values), CATALOGUE)


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


def test_numbers_may_be_fractions_and_text():
    for text, number in (("8/255", 8 / 255), ("0.15/4", 0.0375), ("1e-3", 1e-3), (" 7 ", 7), ("-2", -2)):
        assert parse(Real, text) == number
    assert parse(Integer, " 7 ") == 7
    for wrong in ("8/255/2", "1/0", "x/2", "nan", True):
        with pytest.raises(ConfigError, match=f"given: {wrong!r}"):
            parse(Real, wrong)


def test_equal_settings_give_equal_json_in_any_order():
    config = digits()
    shuffled = dict(reversed(config.items())) | {"training": dict(reversed(config["training"].items()))}
    assert load(config).train_job("at", 0).json_text() == load(shuffled).train_job("at", 0).json_text()


EXPERIMENTS = [path.stem for path in sorted(ROOT.glob("config/*.yaml")) if "data" in load_yaml(path)]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_settings_of_jobs_read_back_as_the_same_spec(name):
    experiment = load(load_yaml(ROOT / f"config/{name}.yaml"))
    specs = [settings.for_variant("at") for settings in experiment.measures.values()]
    for spec in [*specs, *experiment.train_jobs.values(), experiment.spec.data]:
        assert type(spec).model_validate_json(spec.json_text()).json_text() == spec.json_text()


def test_the_baseline_may_have_more_seeds_and_lists_may_be_text():
    """Snakemake's --config passes text, with commas between the items of a list."""
    experiment = load(digits(seeds="7,8", baseline_seeds="0,1,2", variants="at,trades-6"))
    assert [*experiment.variants] == ["at", "trades-6"]
    assert experiment.seeds_of("at") == (0, 1, 2)
    assert experiment.seeds_of("trades-6") == (7, 8)
    assert load(digits(seeds=[7], baseline_seeds=None)).seeds_of("at") == (7,)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_published_variant_is_known_and_no_two_come_out_equal(name):
    with open(ROOT / "paper_tables/published/variants.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    jobs = load(CONFIGS[name] | {"variants": "all"}).train_jobs
    assert {row["variant"] for row in rows} == {*jobs}
    texts = {job.model_copy(update={"variant": ""}).json_text() for job in jobs.values()}
    assert len(jobs) == len(texts) == 74


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
    assert jobs["trades-6"].model_dump() == {**at.model_dump(), "objective": "trades", "objective_weight": 6}


@pytest.mark.parametrize("steps", [100, 320, 1800])
def test_weight_averaging_forgets_its_start_and_keeps_the_published_decays_apart(steps):
    decays = [rescaled_decay(decay, steps) for decay in (0.98, 0.985, 0.99, 0.9975)]
    assert decays[-1] ** steps == pytest.approx(0.01)
    assert decays == sorted(decays)
    assert rescaled_decay(0.9975, 2000) == 0.9975


def test_batch_sizes_are_bounded_by_the_training_images_and_from_below():
    """Four times 32 is 128, but there are 96 images."""
    assert load(digits()).train_jobs["batch-size-512"].training.batch_size == 96
    experiment = load(digits(minimum_batch_size=16, variants=["batch-size-8"], overrides=None))
    assert experiment.train_jobs["batch-size-8"].training.batch_size == 16
    with pytest.raises(ConfigError, match="'batch-size-8' and 'batch-size-16' come out equal"):
        load(digits(minimum_batch_size=16, variants=["batch-size-8", "batch-size-16"], overrides=None))


@pytest.mark.parametrize("epochs", [1, 2, 12, 13, 150])
def test_snapshots_are_many_even_and_include_the_last_epoch(epochs):
    spec = load(digits(variants=["at"], training__epochs=epochs)).train_jobs["at"].training
    taken = spec.snapshot_epochs()
    assert taken[0] == 0
    assert taken[-1] == epochs - 1
    assert len(taken) >= min(spec.snapshots, epochs)
    assert len({b - a for a, b in itertools.pairwise(taken[:-1])}) <= 1


@pytest.mark.parametrize("content", [
    "a/b: {label: x, family: y}", "1: {label: x, family: y}", "a: {label: x}", "a: [1]",
    "a: {label: x, family: y, derived_from: b}", "a: {label: x, family: y, scale: {epochs: -1}}",
])  # fmt: skip
def test_a_bad_entry_of_the_catalogue_is_named(tmp_path, content):
    path = tmp_path / "variants.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=rf"{path}: .*{content.partition(':')[0]}"):
        load_variants(path)


#: Fields of a valid config with a bad value (None: removed).
BAD = [
    ("variants", ["trade-6"]), ("variants", ["at-scaled-2"]), ("overrides.nope", {}), ("measure", {}),
    ("own_variants", {"at": {"label": "x", "family": "y"}}),
    ("own_variants", {"x": {"label": "x", "family": "y", "derived_from": "z", "convolution_scale": 2}}),
    ("overrides.at", {"set": {"momentun": 1}}), ("overrides.at", {"scale": {"momentun": 1}}),
    ("overrides.at", {"set": {"epochs": None}}), ("overrides.at", {"scale": {"epochs": 1e308}}),
    ("overrides.at", {"scale": {"milestones": 2}}),
    ("overrides.trades-6", {"scale": {"objective_weight": 2}}),
    ("overrides.at", {"set": {"objective": "mart", "label_smoothing": 0.1}}),
    ("overrides.at", {"set": {"objective": "self-supervision", "stop_after_flip": 1}}),
    ("overrides.trades-6", {"set": {"adversarial_fraction": 0.5}}),
    ("overrides.awp-0.01", {"set": {"sam_rho": 0.05}}),
    ("overrides.at", {"set": {"optimizer": "entropy-sgd"}}), ("overrides.at", {"set": {"objective": 3}}),
    ("measures.robustnes", {}), ("measures.flatness.average.sample", 3), ("measures.hessian.eigenvalues", 1),
    ("measures.flatness.worst.xi", [0.5, "1/2"]), ("measures.robustness.test_examples", 501),
    ("norm", "l1"), ("training.norm", "l2"), ("overrides.at", {"set": {"norm": "l2"}}),
    ("measures.flatness.attack", {"norm": "l2"}),
    ("measures.flatness.attack", {"epsilon": 0.1, "step_size": 0.02}), ("measures.landscape.examples", 501),
    ("measures.robustness.autoattack.target_classes", 10), ("measures.series.variants", ["nope"]),
    ("measures.series.variants", ["at", "at-scaled-2"]), ("measures.series.hessian.variants", ["at", "nope"]),
    ("measures.plane", {"directions": "snapshots", "variants": ["at", "at-scaled-2"]}),
    ("data.name", "mnist"), ("data", {"name": "npz", "train": 2, "early_stopping": 1, "test": 1}),
    ("data.test", 1500), ("data.classes", 5), ("data.unlabeled", 0), ("data", None), ("model.name", "vgg"),
    ("training.objective", "losses:"), ("training.objective", "gan"), ("training.epoch", 3),
    ("training.steps", 1.5), ("training.batch_size", 1), ("epsilon", 8), ("epsilon", math.nan),
    ("seeds", [0, "0"]), ("seeds", []), ("experiment", "../x"), ("experiment", None),
    ("compute", {"device": "tpu"}), ("data.path", "my{v}.npz"), ("minimum_batch_size", 97),
    ("families.mine", {"label": "x", "color": "ornge"}), ("families.mine", {"label": "x", "marker": "q"}),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), BAD, ids=str)
def test_errors_name_the_field(field, value):
    section, _, slug = field.partition(".")
    words, path = field.removeprefix("own_").split("."), field.replace(".", "__")
    if section == "overrides":  # slugs have dots; the changed settings are named as well
        words, path = [repr(slug), *itertools.chain(*value.values())], f"overrides__{slug}"
    with pytest.raises(ConfigError) as error:
        load(digits(**{path: value}))
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize("content", [
    b"", b"[1, 2]", b"a: [", b"\xff\xfe", b"a: 2001-99-99", b"x: " + b"9" * 5000, b"a: 1\nb: 2\na: 3\n",
])  # fmt: skip
def test_files_without_a_config_are_refused(tmp_path, content):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        load_experiment(load_yaml(path), VARIANTS)


def test_a_measure_applies_to_the_variants_it_names_or_to_all_possible():
    experiment = load(CONFIGS["smoke"])
    assert measured_by(experiment, "hessian") == ["at", "at-scaled-2"]
    assert measured_by(experiment, "robustness") == list(experiment.variants)
    everywhere = copy.deepcopy(CONFIGS["smoke"])
    for block in everywhere["measures"].values():
        block.pop("variants", None)
    everywhere = load(everywhere)
    assert measured_by(everywhere, "landscape") == list(experiment.variants)
    assert measured_by(everywhere, "series") == ["at", "trades-6", "unlabeled"]  # what has snapshots
    assert measured_by(everywhere, "plane") == ["at", "trades-6", "unlabeled"]


def test_settings_of_a_measure_may_differ_for_single_variants():
    config = digits(measures__robustness__overrides={"at": {"test_examples": 300}})
    settings = load(config).measures["robustness"]
    assert settings.for_variant("at").test_examples == 300
    usual = load(digits()).measures["robustness"]
    assert settings.for_variant("trades-6").json_text() == usual.json_text()
    bad = [{"at": {"test_examples": 9999}}, {"at": {"tests": 3}}, {"att": {"test_examples": 3}}]
    for wrong in (*bad, {"at": {"attack": {"epsilon": 0.2}}}):
        with pytest.raises(ConfigError, match=r"robustness.*overrides|tests: "):
            load(digits(measures__robustness__overrides=wrong))
    nested = load(digits(measures__flatness__overrides={"at": {"average": {"samples": 9}}}))
    flatness = nested.measures["flatness"]
    changed = flatness.average.model_copy(update={"samples": 9})
    assert flatness.for_variant("at").average == changed != flatness.average
    with pytest.raises(ConfigError, match=r"series\.hessian\.overrides"):
        load(digits(measures__series__hessian__overrides={"at": {"eigenvalues": 3}}))


def test_what_jobs_read_is_an_input_of_their_rules(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    source = "from robust_flatness.training.objectives import Objective as Mine\ntwo = len\n"
    (tmp_path / "mine_there.py").write_text(source)
    own = {"mine": {"label": "Mine", "family": "at", "set": {"objective": "mine_there:Mine"}}}
    config = digits(measures__sharpness__own={"two": "mine_there:two"}, own_variants=own)
    experiment = load(config | {"variants": ["at", "mine"]})
    texts = {}
    for content in (source, f"{source}#\n"):
        (tmp_path / "mine_there.py").write_text(content)
        spec, jobs = workflow.collect_spec(experiment, tmp_path), {}
        for slug in ("at", "mine"):
            jobs[slug] = json.loads(workflow.measuring_job(experiment, slug))
            assert jobs[slug]["fingerprints"] == {"sharpness": spec.measures[slug]["sharpness"]}
            applied = spec.baseline | spec.variants[slug].settings
            assert fingerprint(applied) == jobs[slug]["training"]
        texts[content] = [jobs["at"]["fingerprints"], jobs["mine"]["training"], jobs["at"]["training"]]
    old, new = texts.values()
    assert [a == b for a, b in zip(old, new, strict=True)] == [False, False, True]
    assert "fingerprints" not in workflow.measuring_job(load(digits()), "at")
    assert workflow.measuring_code(experiment, "at") == [tmp_path / "mine_there.py"]
    splits = {"train": 2, "early_stopping": 1, "test": 1}
    npz = DataSpec(name="npz", path="my.npz", **splits)
    assert workflow.data_files(npz) == [Path("my.npz")]
    official = DataSpec(name="cifar10", path="there", pool="extra.pickle", **splits)
    assert {str(path) for path in workflow.data_files(official)} > {"extra.pickle", "there/test_batch"}
    (tmp_path / "there/cifar-10-batches-py").mkdir(parents=True)  # as in a root of torchvision
    assert Path("there/cifar-10-batches-py/test_batch") in workflow.data_files(official)
    assert workflow.data_files(experiment.spec.data) == []
    folder, state = DataSpec(name="folder", path=str(tmp_path), **splits), workflow.data_state.__wrapped__
    before = state(folder)
    (tmp_path / "store").mkdir()
    (tmp_path / "train").symlink_to(tmp_path / "store")
    (tmp_path / "new.png").write_bytes(b"1")  # in no folder that is read
    assert state(folder) == before
    (tmp_path / "store/new.png").write_bytes(b"1")
    assert "" != before != state(folder) != state(experiment.spec.data) == ""
    states = []
    for content in (b"1", b"2", b"1"):
        (tmp_path / "my.npz").write_bytes(content)
        os.utime(tmp_path / "my.npz", (0, 0))
        states.append(state(npz))
    assert states[0] == states[2] != states[1]


def test_code_of_the_users_own_is_imported_and_followed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    files = {
        "mine_here.py": "import sys\nsys.path.append('lib')\nimport os, helper_here\n"
                        "from pack_here.sub import deep\ndef loss(): pass\n",
        "helper_here.py": "import consts_here", "unrelated_here.py": "",
        "lib/consts_here.py": "import importlib\nimportlib.import_module('named_here')\n",
        "archive/consts_here.py": "",
        "named_here.py": "import robust_flatness\n", "src/robust_flatness/__init__.py": "",
        "pack_here/__init__.py": "", "pack_here/other.py": "",
        "pack_here/sub/__init__.py": "from ..other import *\n", "pack_here/sub/deep.py": "",
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = {str(path.relative_to(tmp_path)) for path in source_files("mine_here:loss")}
    unrelated = {"unrelated_here.py", "src/robust_flatness/__init__.py"}
    assert found == files.keys() - unrelated
    before = source_digest(["mine_here:loss"])
    for name in sorted(files):
        (tmp_path / name).write_text(files[name] + "# changed\n")
        after = source_digest(["mine_here:loss"])
        assert (after != before) == (name not in unrelated)
        before = after
    for name in ("torchvision:resnet18", "nothing_here:f", "at", "json:loads"):
        assert source_files(name) == []
    own = {"mine": {"label": "Mine", "family": "at", "set": {"objective": "mine_here:Loss"}}}
    of_measures = digits(measures__sharpness__own={"two": "mine_here:two"})
    network = digits(models={"a": {"model": "mine_here:net"}})
    for values in (digits(own_variants=own), of_measures, digits(training__objective="mine_here:L"), network):
        with pytest.raises(ConfigError, match=r"'mine_here:[a-zL]*' cannot be imported"):
            load(values)
    for changed, message in (
        ({"training__objective": "mine_here:loss"}, "not a subclass of"),
        ({"measures__sharpness__own": {"two": "mine_here:__name__"}}, "expected a function"),
    ):
        with pytest.raises(ConfigError, match=message):
            load(digits(**changed))


def test_all_problems_are_reported_at_once():
    of_jobs = {"measures__landscape__examples": 501, "overrides__at": {"set": {"lr": 1}}}
    for bad in ({"epsilon": 0, "seeds": []}, of_jobs):
        with pytest.raises(ConfigError) as error:
            load(digits(**bad))
        assert len(str(error.value).splitlines()) == 2


def test_the_norm_reaches_all_attacks_and_frees_the_radius():
    values = digits(norm="l2", epsilon=1.5, training__step_size=None, measures__other_radii={})
    experiment = load(values)
    trained = {(job.training.norm, job.training.evaluation_epsilon) for job in experiment.train_jobs.values()}
    assert trained == {("l2", 1.5)}
    attacks = [settings.attack for settings in experiment.measures.values() if hasattr(settings, "attack")]
    assert {(attack.norm, attack.epsilon) for attack in attacks} == {("l2", 1.5)}
    at = experiment.train_jobs["at"].training
    assert attacks[0].step_size == at.step_size == 1.5 / 4


def test_the_default_norm_leaves_fingerprints_as_they_were():
    """Of experiments from before the setting: it is in no settings of a job."""
    plain, named = load(digits()), load(digits(norm="linf"))
    texts = [workflow.measuring_job(experiment, "at") for experiment in (plain, named)]
    texts += [experiment.train_job("at", 0).json_text() for experiment in (plain, named)]
    assert not any('"norm"' in text for text in texts)
    assert workflow.config_fingerprint(plain) == workflow.config_fingerprint(named)
    assert '"norm"' in workflow.measuring_job(load(digits(norm="l2")), "at")
    assert workflow.config_fingerprint(plain) != workflow.config_fingerprint(load(digits(norm="l2")))


@pytest.mark.parametrize("variants", [["sam", "at"], ["at", "sam"], ["sam"]])
def test_records_are_collected_whatever_variant_comes_first(variants, tmp_path):
    """Also if it has a setting that the JSON of the others leaves out."""
    (tmp_path / "trades-6/seed-0").mkdir(parents=True)
    (tmp_path / "trades-6/seed-0/records.csv").touch()
    own = {"sam": {"label": "SAM", "family": "at", "set": {"sam_rho": 0.05}}}
    experiment = load(digits(own_variants=own, variants=variants))
    spec = workflow.collect_spec(experiment, tmp_path)
    assert {*spec.variants} == {*variants, "trades-6"}
    for slug, entry in spec.variants.items():
        job = json.loads(workflow.measuring_job(experiment, slug))
        assert fingerprint(spec.baseline | entry.settings) == job["training"]


@pytest.fixture
def examples(monkeypatch) -> list[dict]:
    """The experiments in config/README.md."""
    own = SimpleNamespace(Brier=type("Brier", (Objective,), {}), wide=len)
    for name in ("my_losses", "my_nets"):
        monkeypatch.setitem(sys.modules, name, own)
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "config/README.md").read_text(), re.DOTALL)
    return [*map(yaml.safe_load, blocks)]


def test_settings_follow_from_the_lines_of_the_readme(examples):
    experiment = load(examples[0])
    assert list(experiment.measures) == list(MEASURES)
    for name in ("robustness", "flatness"):
        attack = experiment.measures[name].attack
        assert (attack.epsilon, attack.step_size, attack.steps, attack.restarts) == (0.1, 0.025, 20, 10)
        assert experiment.measures[name].test_examples == experiment.measures[name].train_examples == 1000
        assert measured_by(experiment, name) == ["at", "trades-6", "awp-0.01"]
    assert measured_by(experiment, "series") == measured_by(experiment, "landscape") == ["at"]
    assert experiment.train_job("at", 0).training.step_size == 0.025


def test_variants_and_networks_of_the_readme_are_added(examples):
    first, more, networks = examples
    own = load(first | more)
    assert own.train_job("brier", 0).training.objective == "my_losses:Brier"
    assert own.spec.families["mine"].color == "#E69F00"
    assert [*load(first | networks).networks] == ["mine", "wong", "counted"]


GARBAGE = [
    None, True, -1, 0.5, 2**63, 10**4000, math.nan, "", "8/255", "1/0", "all", "at,at", "\x00", b"x",
    [], [None], {}, {"x": 1}, {1: {}}, {"set": {"epochs": []}},
]  # fmt: skip


def places(value, path=()):
    """Paths of all values in a config."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


def test_mutated_configs_validate_or_name_the_field():
    mutations = [*itertools.product(places(CONFIGS["smoke"]), GARBAGE)]
    accepted = 0
    for (*path, last), garbage in random.Random(0).sample(mutations, 300):
        config = copy.deepcopy(CONFIGS["smoke"])
        functools.reduce(operator.getitem, path, config)[last] = garbage
        try:
            load(config)
            accepted += 1
        except ConfigError as error:
            message = str(error)
            assert ":" in message.splitlines()[0]  # the field comes first
            assert len(message) < 20_000
            assert " object at 0x" not in message
    assert 6 < accepted < 200
