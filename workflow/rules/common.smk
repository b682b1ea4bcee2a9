# The validated experiment, and helpers shared by the rules.

import math
import os
import subprocess
import sys
import time
from pathlib import Path
from shlex import quote

from snakemake.cli import get_argument_parser

from robust_flatness.experiment import load_experiment
from robust_flatness.config.kinds import source_files
from robust_flatness.config.networks import weights_file
from robust_flatness.config.values import load_yaml
from robust_flatness.config.data import CIFAR10_FILES, CIFAR10_FOLDER
from robust_flatness.errors import ConfigError
from robust_flatness.files import canonical_json, write_text
from robust_flatness.measures.base import CHECKPOINTS
from robust_flatness.run.planning import OVERHEAD_MINUTES, measuring_passes, minutes, training_passes
from robust_flatness.measures.registry import MEASURES
from robust_flatness.tables.records import read_csv
from robust_flatness.tables.schema import TABLES
from robust_flatness.version import __version__
from robust_flatness.workflow import collect_spec, contents_digest, data_files, data_state, gpus_here
from robust_flatness.workflow import measuring_code, measuring_job

# The repository's root, also if another workflow imports this one as a module.
ROOT = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parents[1]

try:
    given = [load_yaml(path).get("experiment") for path in workflow.configfiles]  # no duplicate keys
    name = workflow.config_settings.config.get("experiment")
    shipped = {load_yaml(path).get("experiment"): path for path in sorted((ROOT / "config").glob("*.yaml"))}
    if name and name in shipped and name not in given:
        hint = f"give --configfile {os.path.relpath(shipped[name])} instead of --config"
        raise ConfigError(f"experiment: {name} is the experiment of another file; {hint}")
    EXPERIMENT = load_experiment(config, ROOT / "config/variants.yaml")
except ConfigError as error:
    # One line per problem, without Snakemake's traceback through this file.
    sys.exit(f"error: the configuration cannot be used\n{error}")

MODIFIER = workflow.modifier.path_modifier


def placed(path):
    """Return a path of the rules with the module's `prefix`, for params and for files read while planning.

    If another workflow imports this one as a module with a `prefix`, Snakemake itself adds the prefix to relative
    inputs, outputs and logs only.
    """
    return MODIFIER.replace_prefix(str(path))


def as_given(path):
    """Return a path for rules to which Snakemake adds no `prefix`."""
    return Path(path) if placed(path) == str(path) else Path(path).absolute()


def verbatim(text):
    """Return a value for params that holds free text, in which Snakemake expands no wildcards."""
    return lambda wildcards: text


def of_repository(path):
    """Return the path of a file or folder of the repository, relative if Snakemake runs in it."""
    return as_given(path if Path(path).exists() else ROOT / path)


RESULTS = f"results/{EXPERIMENT.name}"
RESULTS_FOLDER = Path(placed(RESULTS))
LOGS = f"logs/{EXPERIMENT.name}"
RUN = f"{RESULTS}/{{variant}}/seed-{{seed}}"
RUN_LOG = f"{LOGS}/{{variant}}/seed-{{seed}}"

# The commands of the rules come from the environment that runs Snakemake.
os.environ["PATH"] = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
# Snakemake puts this path into the commands that run scripts, without quoting it.
sys.executable = quote(sys.executable)


onstart:
    if MAKES_TABLES and not EXPERIMENT.spec.results_table:
        check_networks()


def only_draws():
    """Return whether all targets on Snakemake's command line are figures, tables and pages."""
    # the workflow object does not know the targets yet
    try:
        targets = get_argument_parser().parse_known_args(sys.argv[1:])[0].targets or ()
    except SystemExit:  # the arguments of another program, which calls Snakemake's API
        return False
    folders = {target.removeprefix("./").partition("/")[0] for target in targets}
    return bool(folders) and folders <= {"figures", "tables", "page", "paper_tables", "report"}


# If only figures or tables are requested and results exist, the workflow starts from these: nothing is trained or
# measured, whatever has changed upstream.
RECORDS_TABLE = RESULTS_FOLDER / "records.csv"
MAKES_TABLES = not (only_draws() and RECORDS_TABLE.exists())
if (RESULTS_FOLDER / "models.csv").exists() and not RECORDS_TABLE.exists():
    hint = "move the folder away or choose another name (--config experiment=NAME); results_table: reads its models.csv"
    sys.exit(f"error: {RESULTS_FOLDER}: results of an earlier version of this package; {hint}")


def why_stale():
    """Return why the tables are out of date, or an empty string."""
    configuration = [*map(Path, workflow.configfiles), ROOT / "config/variants.yaml"]
    if max(path.stat().st_mtime for path in configuration) > RECORDS_TABLE.stat().st_mtime:
        return "are older than the configuration"
    networks = read_csv(RESULTS_FOLDER / "networks.csv", need=["variant", "seed"])
    found = {*zip(networks["variant"], networks["seed"])}
    wanted = {(slug, str(seed)) for slug in EXPERIMENT.variants for seed in EXPERIMENT.seeds_of(slug)}
    lacking = [] if EXPERIMENT.spec.results_table else sorted(wanted - found)
    return f"lack {len(lacking)} networks, such as {' of seed '.join(lacking[0])}" if lacking else ""


if not MAKES_TABLES and (stale := why_stale()):
    print(
        f"note: the tables in {RESULTS_FOLDER} {stale}; figures and tables are drawn from them as they are "
        "(run `snakemake --cores all` to bring them up to date)",
        file=sys.stderr,
    )

TRAINED = [slug for slug, variant in EXPERIMENT.variants.items() if variant.trained]
DERIVED = [slug for slug, variant in EXPERIMENT.variants.items() if variant.derived_from]
NETWORKS = EXPERIMENT.networks
# GPUs of a job: a cluster's scheduler grants them. A local run starts as many such jobs at a time as there
# are GPUs, each of which takes one of its own; --resources gpu=N allows more (or fewer).
DEVICE = EXPERIMENT.spec.compute.device
GPUS = int(DEVICE.startswith("cuda") or DEVICE == "mps" or (DEVICE == "auto" and gpus_here() > 0))
if GPUS and workflow.local_exec and "gpu" not in workflow.global_resources:
    workflow.register_resource("gpu", gpus_here() if DEVICE in ("auto", "cuda") and gpus_here() else 1)
COMPUTE = f"--device {DEVICE} --threads {EXPERIMENT.spec.compute.threads}"
# Maximum time limit of a job on a cluster, in minutes.
LIMIT = int(60 * EXPERIMENT.spec.compute.hours)


def memory(wildcards, attempt):
    """Return the memory (MB) of a job: more at each attempt, if the profile sets `retries`."""
    return 4000 * attempt


def time_limit(job_minutes):
    """Return the time limit of a job, given a function of its wildcards: more at each attempt, up to `LIMIT`."""
    return lambda wildcards, attempt: min(LIMIT, attempt * job_minutes(wildcards))


def minutes_for(passes, own=True):
    """Return the time limit for `passes` through the experiment's network (`own`) or an external one."""
    _, side = EXPERIMENT.spec.data.shape
    return minutes(passes, EXPERIMENT.spec.model if own else None, side, "cuda" if GPUS else "cpu")


def one_of(slugs):
    """Return a regular expression for a wildcard that matches exactly these values."""
    return "|".join(slug.replace(".", r"\.") for slug in slugs) or "(?!)"


wildcard_constraints:
    variant=one_of(EXPERIMENT.variants),
    seed=r"\d+",


def of_each(pattern, slugs):
    """Return `pattern` expanded for each of the variants with each of its seeds."""
    return [path for slug in slugs for path in expand(pattern, variant=slug, seed=EXPERIMENT.seeds_of(slug))]


WEIGHTS = f"{RUN}/checkpoints/{{which}}.safetensors"
BOTH_WEIGHTS = expand(WEIGHTS, which=CHECKPOINTS, allow_missing=True)
