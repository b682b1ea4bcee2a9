"""Command line: one command per step of the workflow, and `measure` for a network of one's own.

Specs are JSON (text or a file), as the workflow hands them over; `robust-flatness spec` prints
them, so that any step can be run by hand:

    robust-flatness train --spec "$(robust-flatness spec train --variant trades-6)" ...
"""

import json
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from robust_flatness.config import (
    ConfigError,
    DataSpec,
    TrainJob,
    load_experiment,
    load_yaml,
    meant,
    parse,
    parse_list,
    parse_number,
)
from robust_flatness.config.data import CIFAR10_FOLDER
from robust_flatness.config.measures import STEPS_TO_THE_EDGE, Setting
from robust_flatness.config.values import Precision
from robust_flatness.errors import RobustFlatnessError
from robust_flatness.files import write_json, write_text
from robust_flatness.measuring.registry import MEASURES
from robust_flatness.measuring.sharpness import NAMES
from robust_flatness.progress import counted, shown, told

#: Time and CPU time when the command began; the library hands nothing from its start to its end.
_began = [0.0, 0.0]


def clocks() -> tuple[float, float]:
    """Time and this process' CPU time, in seconds."""
    return time.monotonic(), time.process_time()


def write_timings(result: Any, timings: Path | None) -> None:
    """After a command that has succeeded: seconds and CPU seconds since it began, peak memory (MB)."""
    if timings is None:
        return
    seconds, cpu = (now - then for now, then in zip(clocks(), _began, strict=True))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    with suppress(OSError):  # what was computed counts
        row = f"{seconds:.2f}\t{cpu:.2f}\t{memory:.0f}"
        write_text(timings, f"s\tcpu_s\tmax_rss_mb\n{row}\n", durable=False)


app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, result_callback=write_timings
)  # fmt: skip

Spec = Annotated[str, typer.Option(help="Settings as JSON, or a file that holds them.")]
Data = Annotated[Path, typer.Option(help="Prepared dataset (.npz) from `prepare`.")]
Seed = Annotated[int, typer.Option(help="Seed from which all random streams derive.", min=0)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Threads = Annotated[int, typer.Option(help="Torch's threads; another number gives other bits.", min=1)]
Checkpoints = Annotated[list[Path], typer.Argument(help="Checkpoints (.safetensors).")]
Output = Annotated[Path, typer.Option(help="File to write.")]
Scope = Literal["dataset", "batch"]


def read_spec(kind: type, text: str) -> Any:
    """A spec from JSON text or from a file of it."""
    try:
        if not text.lstrip().startswith("{"):
            text = Path(text).read_text(encoding="utf-8")
        values = json.loads(text)
    except OSError as error:
        raise ConfigError(f"--spec: {text!r} is neither JSON nor a file ({error.strerror})") from None
    except ValueError as error:
        raise ConfigError(f"--spec: not valid JSON ({error})") from None
    return parse(kind, values, "--spec")


@app.callback()
def common(
    timings: Annotated[Path | None, typer.Option(help="File for time and memory taken (.tsv).")] = None,
) -> None:
    """Adversarial training, robustness and flatness of the robust loss, step by step."""
    _began[:] = clocks()


@app.command()
def spec(
    step: Annotated[str, typer.Argument(help="data, train, robustness, flatness, hessian, ...")],
    config: Annotated[Path, typer.Option(help="Experiment.")] = Path("config/fashion.yaml"),
    variant: Annotated[str, typer.Option(help="Variant, for train and measures.")] = "at",
    seed: Seed = 0,
) -> None:
    """Print the settings of one step of an experiment as JSON."""
    experiment = load_experiment(load_yaml(config), config.parent / "variants.yaml")
    typer.echo(experiment.settings_of(step, variant, seed).json_text())


@app.command()
def new_experiment(
    data: Annotated[Path, typer.Option(help="x_train, y_train, x_test, y_test, uint8 images (.npz).")],
    output: Annotated[Path, typer.Option(help="YAML file to write.")],
    name: Annotated[str, typer.Option(help="Name of the experiment; default: the file's.")] = "",
    epsilon: Annotated[str, typer.Option(help="Radius, e.g. 8/255; default: by the images' kind.")] = "",
) -> None:
    """Write a commented experiment for data of your own, with sizes that fit."""
    from robust_flatness.data.new_experiment import new_experiment as written

    if output.exists():
        raise ConfigError(f"--output: {output} exists; name another file")
    write_text(output, written(data, output, name or output.stem, epsilon))
    typer.echo(f"{output}: snakemake --cores all --configfile {output}")


@app.command()
def plan(
    config: Annotated[Path, typer.Option(help="Experiment.")] = Path("config/fashion.yaml"),
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: the experiment's.")] = None,
    workers: Annotated[
        list[int] | None, typer.Option(help="Jobs at a time, for the wall time; default 1 and 64.", min=1)
    ] = None,
) -> None:
    """Say what an experiment costs before it is spent: jobs, hours, disk, memory."""
    from robust_flatness.planning import plan as cost_of

    experiment = load_experiment(load_yaml(config), config.parent / "variants.yaml")
    if experiment.spec.results_table is not None:
        raise ConfigError(f"{config}: starts from a results table; nothing is trained or measured")
    typer.echo(cost_of(experiment, device).text(workers or (1, 64)))


@app.command()
def schema() -> None:
    """Print the JSON schema of an experiment's YAML, for editors (kept as config/schema.json)."""
    from robust_flatness.config.specs import schema as described

    typer.echo(json.dumps(described(), indent=1, sort_keys=True))


@app.command()
def prepare(spec: Spec, output: Output, seed: Seed = 0) -> None:
    """Read a dataset, draw its disjoint splits, write them to one file."""
    from robust_flatness.data import make_splits, save_dataset

    save_dataset(output, make_splits(read_spec(DataSpec, spec), seed))


@app.command()
def download_cifar10(
    directory: Annotated[Path, typer.Option(help="Folder for the official files.")] = Path(CIFAR10_FOLDER),
) -> None:
    """Download CIFAR-10, checked by its checksum; goes on where an earlier download was interrupted."""
    from robust_flatness.data.download import download_cifar10 as download

    download(directory)


@app.command()
def pseudo_label(
    spec: Spec, data: Data, output: Output, seed: Seed = 0, device: Device = "cpu", threads: Threads = 1
) -> None:
    """Train a standard classifier on the labelled images and label the unlabelled pool with it."""
    from robust_flatness.data import load_dataset, save_pseudo_labels
    from robust_flatness.devices import start
    from robust_flatness.training import pseudo_label as predict

    job = read_spec(TrainJob, spec)
    device = start(device, threads)
    dataset = load_dataset(data)
    save_pseudo_labels(output, predict(dataset, job.model, job.training, seed, device), dataset)


@app.command()
def train(
    spec: Spec,
    data: Data,
    directory: Annotated[Path, typer.Option(help="Folder for history and checkpoints.")],
    pseudo_labels: Annotated[Path | None, typer.Option(help="Pseudo-labels of the pool.")] = None,
    all_snapshots: Annotated[
        bool, typer.Option("--all-snapshots/--best-and-last", help="Which snapshots are kept.")
    ] = True,
    until: Annotated[
        int | None, typer.Option(help="End after so many epochs; the next call goes on.", min=1)
    ] = None,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Train one variant; resumes where an earlier run of the same settings was interrupted."""
    from robust_flatness.data import load_dataset, load_pseudo_labels
    from robust_flatness.devices import start
    from robust_flatness.training import train as run_training

    job = read_spec(TrainJob, spec)
    device = start(device, threads)
    dataset = load_dataset(data)
    labels = load_pseudo_labels(pseudo_labels, dataset) if pseudo_labels else None
    name = f"{job.variant}, seed {job.seed}"
    with shown():
        run_training(
            job, dataset, directory, device=device, pseudo_labels=labels, all_snapshots=all_snapshots,
            until=until, progress=lambda done, total, row: counted(name, done, total),
        )  # fmt: skip


@app.command()
def scale(
    checkpoints: Checkpoints,
    factor: Annotated[float, typer.Option(help="Factor for all convolutions.")],
    variant: Annotated[str, typer.Option(help="Name of the derived model.")],
    directory: Annotated[Path, typer.Option(help="Folder for the scaled checkpoints.")],
) -> None:
    """Scale convolutions and the batch norms' statistics with them: same function, other weights."""
    from robust_flatness.flatness.scaling import scale_checkpoint

    if not 0 < factor < float("inf"):
        raise ConfigError(f"--factor: {factor} given; expected a number greater than 0")
    for path in checkpoints:
        scale_checkpoint(path, directory / path.name, factor, variant)


@app.command()
def check_network(
    spec: Spec,
    name: Annotated[str, typer.Option(help="What the network is called in tables.")],
    shape: Annotated[str, typer.Option(help="Channels and side of the images, e.g. 3,32.")],
    classes: Annotated[int, typer.Option(help="Classes of the data.", min=2)],
) -> None:
    """Check that a network of others can be loaded and fits images before anything is run."""
    from robust_flatness.config.networks import NetworkSpec
    from robust_flatness.models.importing import check_network as check

    channels, side = (int(number) for number in numbers("--shape", shape) or ())
    check(read_spec(NetworkSpec, spec), name, (channels, side), classes)


@app.command()
def import_network(
    spec: Spec,
    data: Data,
    output: Output,
    name: Annotated[str, typer.Option(help="What the network is called in tables.")],
    seed: Seed = 0,
) -> None:
    """Load a network of others, check that it fits the data, and keep it as a checkpoint."""
    from robust_flatness.config.networks import NetworkSpec
    from robust_flatness.data import load_dataset
    from robust_flatness.models.importing import import_network as run_import

    run_import(read_spec(NetworkSpec, spec), load_dataset(data), output, name, seed)


@app.command()
def measure_checkpoints(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(MEASURES)}.", metavar="MEASURE")],
    checkpoints: Checkpoints,
    spec: Spec,
    data: Data,
    output: Annotated[Path, typer.Option(help="Folder of the run: measures/<checkpoint>/... or a table.")],
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Apply one measure to checkpoints; one of snapshots (the series) to all that lie beside them."""
    if name not in MEASURES:
        raise ConfigError(f"{name!r} given{meant(name, MEASURES)}; measures are {', '.join(MEASURES)}")
    chosen = read_spec(MEASURES[name].spec, spec)
    from robust_flatness.devices import start
    from robust_flatness.measuring import run

    device = start(device, threads)
    with shown():
        run.measure_checkpoints(MEASURES[name], checkpoints, chosen, data, output, seed, device, threads)


def add_command(measure: str) -> None:
    """Each measure is a command of its own name, too."""

    @app.command(measure, help=f"The same as `measure-checkpoints {measure}`.", hidden=True)
    def command(
        checkpoints: Checkpoints, spec: Spec, data: Data,
        output: Annotated[Path, typer.Option(help="Folder of the run, for measures/<checkpoint>/...")],
        seed: Seed = 0, device: Device = "cpu", threads: Threads = 1,
    ) -> None:  # fmt: skip
        measure_checkpoints(measure, checkpoints, spec, data, output, seed, device, threads)


for _name in MEASURES:
    add_command(_name)


@app.command()
def collect(
    spec: Annotated[str, typer.Option(help="Variants and seeds as JSON, or a file that holds them.")],
    directory: Annotated[Path, typer.Option(help="Folder of the experiment's results.")],
    merge: Annotated[list[Path] | None, typer.Option(help="Tables of another run to join in.")] = None,
) -> None:
    """Gather measures, histories and series into the tables of the experiment (models.csv and others)."""
    from robust_flatness.tables.collect import CollectSpec, collect_results

    collect_results(read_spec(CollectSpec, spec), directory, merge or ())


@app.command()
def merge(
    tables: Annotated[list[Path], typer.Argument(help="Folders with the tables of runs of one experiment.")],
    output: Annotated[Path, typer.Option(help="Folder for the joined tables.")],
) -> None:
    """Join tables of several runs, e.g. of two machines, into one: models.csv and what lies beside it.

    Rows that are in two of them with other numbers, and rows of another config, version or precision, are
    an error that names them.
    """
    from robust_flatness.tables.merging import merge_tables

    merge_tables(tables, output)


@app.command()
def dataset(
    tables: Annotated[list[Path], typer.Argument(help="Folders with the tables of experiments.")],
    output: Annotated[Path, typer.Option(help="Folder for the dataset.")] = Path("dataset"),
) -> None:
    """Write all results as data: one tidy table (CSV, Parquet), a dictionary, a card for each model.

    The paper's printed numbers come along.
    """
    from robust_flatness.tables.dataset import write_dataset

    typer.echo(f"{output}: {write_dataset(tables, output)} values")


@app.command()
def export(
    checkpoints: Checkpoints,
    directory: Annotated[Path, typer.Option(help="Folder for models/ and model_info/.")],
    dataset: Annotated[str, typer.Option(help="RobustBench's name of the dataset.")] = "cifar10",
) -> None:
    """Write checkpoints in RobustBench's form: weights (.pt), and a JSON of what was measured."""
    from robust_flatness.models.robustbench import export_checkpoint

    for path in checkpoints:
        for written in export_checkpoint(path, directory, dataset):
            typer.echo(written)


@app.command()
def verify(
    directory: Annotated[Path, typer.Argument(help="Results of an experiment, e.g. results/fashion.")],
    sample: Annotated[int, typer.Option(help="Measures to recompute; 0: all.", min=0)] = 6,
    seed: Annotated[int, typer.Option(help="Seed that chooses the sample.", min=0)] = 0,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Recompute a sample of measures from the checkpoints and report agreement.

    On the machine that measured them they must be identical; elsewhere differences up to a stated
    tolerance agree. Exit status 1 if one does not.
    """
    from robust_flatness.devices import start
    from robust_flatness.measuring import verify as verification

    device = start(device, threads)
    files = verification.sample_files(directory, sample or None, seed)
    note = verification.other_versions(files[0])
    if note:
        typer.echo(f"note: {note}")
    agreements = []
    with shown():
        for path in told(files, "verify"):
            agreements.append(verification.verify_file(path, device))
            typer.echo(agreements[-1])
    problems = verification.verify_table(directory, files)
    typer.echo("\n".join(problems or [f"{directory}/models.csv: equal to the measures"]))
    typer.echo(verification.summary(agreements))
    if problems or not all(agreement.agrees for agreement in agreements):
        raise typer.Exit(1)


@app.command()
def import_table(
    table: Annotated[Path, typer.Argument(help="Results table (.csv) in the form of models.csv.")],
    directory: Annotated[Path, typer.Option(help="Folder for the checked tables.")],
) -> None:
    """Check a results table and bring it, and what lies beside it, into the form of `collect`."""
    from robust_flatness.tables.importing import import_table as run_import

    run_import(table, directory)


@app.command()
def measure(
    model: Annotated[
        str, typer.Option(help="package.module:function, torchvision:NAME or robustbench:NAME.")
    ],
    data: Annotated[Path, typer.Option(help="x_test, y_test, perhaps x_train, y_train (.npz).")],
    epsilon: Annotated[str, typer.Option(help="Radius of the L-infinity ball, e.g. 8/255.")],
    weights: Annotated[Path | None, typer.Option(help="Weights (.safetensors, .pt, .pth).")] = None,
    mean: Annotated[str, typer.Option(help="Of the channels, for networks of normalised images.")] = "",
    std: Annotated[str, typer.Option(help="Of the channels, for networks of normalised images.")] = "",
    output: Annotated[
        Path | None,
        typer.Option(help="JSON file for all numbers; an interrupted run goes on from what lies beside it."),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            help="RLoss against average-case flatness, this network among others (.png, .pdf, .svg)."
        ),
    ] = None,
    per_example: Annotated[
        Path | None, typer.Option(help="CSV file for label, prediction, losses and errors of each example.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="models.csv of an experiment, to set the network among its models.")
    ] = None,
    measures: Annotated[str, typer.Option(help="Measures, by name.")] = "robustness,flatness",
    sharpness: Annotated[
        str,
        typer.Option(
            help="Also other measures of sharpness, on training examples: all, names, or "
            "package.module:function of your own."
        ),
    ] = "",
    per_layer: Annotated[
        bool, typer.Option("--per-layer", help="Also average-case flatness, one layer perturbed at a time.")
    ] = False,
    per_layer_worst: Annotated[
        bool, typer.Option("--per-layer-worst", help="The same, and worst-case flatness as well.")
    ] = False,
    examples: Annotated[
        int | None, typer.Option(help="Test examples, from the first; default 1000, or all.", min=1)
    ] = None,
    train_examples: Annotated[int, typer.Option(help="Training examples, from the first.", min=0)] = 0,
    step_size: Annotated[str, typer.Option(help="PGD's step; default epsilon / 4.")] = "",
    steps: Annotated[int, typer.Option(help="PGD's iterations.", min=1)] = 20,
    restarts: Annotated[int, typer.Option(help="PGD's restarts.", min=1)] = 10,
    average_xi: Annotated[str, typer.Option(help="Radius of average-case flatness.")] = "0.5",
    samples: Annotated[int, typer.Option(help="Samples of average-case flatness.", min=1)] = 10,
    worst_xi: Annotated[str, typer.Option(help="Radius of worst-case flatness.")] = "0.003",
    worst_restarts: Annotated[int, typer.Option(help="Restarts of worst-case flatness.", min=1)] = 10,
    scope: Annotated[
        Scope, typer.Option(help="What one perturbation of the weights holds for: all examples, or a batch.")
    ] = "dataset",
    autoattack: Annotated[bool, typer.Option(help="Also run AutoAttack (standard).")] = False,
    attacks: Annotated[
        str, typer.Option(help="AutoAttack with these alone, e.g. apgd-ce,fab-t,square for few classes.")
    ] = "",
    batch_size: Annotated[int, typer.Option(help="Examples per pass.", min=1)] = 128,
    precision: Annotated[
        Precision, typer.Option(help="Of searches; auto: bfloat16 where the device is fast at it.")
    ] = "float32",
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Measure robustness and robust flatness of a network of your own, and say where it lies among others.

    The network takes inputs in the range 0 to 1 of shape (n, C, H, W) and returns logits of shape (n, K).
    """
    from robust_flatness import load_model
    from robust_flatness.devices import start
    from robust_flatness.measuring.own_model import example_table, measure_network, own_data, own_specs
    from robust_flatness.measuring.place import Others, described
    from robust_flatness.tables.rows import write_rows

    names = [*parse_list(measures), *(["layers"] if per_layer or per_layer_worst else [])]
    names += ["sharpness"] * bool(sharpness and "sharpness" not in names)
    if "sharpness" in names and not train_examples:
        raise ConfigError(
            "--sharpness: it is measured on training examples; say how many by --train-examples"
        )
    check_picture(picture, names)
    radius = positive("--epsilon", epsilon)
    step = positive("--step-size", step_size) if step_size else radius / STEPS_TO_THE_EDGE
    common = {"batch_size": batch_size, "scope": scope}
    attack = {"steps": steps, "restarts": restarts}
    average = {"xi": [positive("--average-xi", average_xi)], "samples": samples, **common}
    worst = {"xi": [positive("--worst-xi", worst_xi)], "restarts": worst_restarts, **common}
    blocks = {
        "robustness": {"attack": attack, "autoattack": chosen_autoattack(autoattack, attacks)},
        "flatness": {"attack": attack, "average": average, "worst": worst},
        "layers": {"attack": attack, "average": average, "worst": worst if per_layer_worst else None},
    }
    if sharpness:
        blocks["sharpness"] = chosen_sharpness(sharpness)
    others = [Others.printed(), *([Others.of(against)] if against else [])]
    device = start(device, threads)
    dataset, count = own_data(data, examples)
    setting = Setting(radius, step, test=count, train=train_examples)
    specs = own_specs(names, setting, blocks, {"batch_size": batch_size, "precision": precision})
    network = load_model(model, weights, mean=numbers("--mean", mean), std=numbers("--std", std))
    kept = next((path for path in (output, picture, per_example) if path), None)
    with shown(lines=True):
        result = measure_network(
            network, dataset, specs, seed=seed, device=device,
            state=kept and kept.parent / ".resume" / kept.stem,
            report=lambda message: typer.echo(message, err=True),
        )  # fmt: skip
    result |= {"model": model, "weights": str(weights) if weights else None, "data": str(data)}
    if output:
        write_json(output, result)
    if per_example:
        write_rows(per_example, example_table(result))
    typer.echo(described(result, others))
    if picture:
        from robust_flatness.plotting.own_model import draw

        draw(picture, result, others, weights.stem if weights else model)
        typer.echo(f"\n{picture}")


def check_picture(path: Path | None, measures: list[str]) -> None:
    """Refuse, before anything is measured, a picture that cannot be drawn."""
    if path is None:
        return
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise ConfigError(f"--picture: {path} given; expected a file .png, .pdf or .svg")
    if not {"robustness", "flatness"} <= {*measures}:
        raise ConfigError("--picture: needs robustness and flatness among --measures")


def chosen_autoattack(standard: bool, attacks: str) -> dict | None:
    """AutoAttack's settings from the command line: some attacks alone, the standard version, or none."""
    if attacks:
        return {"version": "reduced", "attacks": attacks}
    return {"version": "standard"} if standard else None


def chosen_sharpness(text: str) -> dict:
    """Measures of sharpness from the command line: the kit's by name or all, one's own by their functions."""
    given = parse_list(text)
    own = {path.partition(":")[2]: path for path in given if ":" in path}
    names = [name for name in given if ":" not in name]
    for name in names:
        if name not in ("all", *NAMES):
            raise ConfigError(
                f"--sharpness: {name!r} given{meant(name, NAMES)}; allowed are all, {', '.join(NAMES)} and "
                "package.module:function"
            )
    return {"measures": "all" if "all" in names else names, "own": own}


def positive(option: str, text: str) -> float:
    """A number greater than 0 from the command line, fractions like 8/255 allowed."""
    value = parse_number(text)
    if not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ConfigError(f"{option}: {text!r} given; expected a number greater than 0, e.g. 0.03 or 8/255")
    return float(value)


def numbers(option: str, text: str) -> list[float] | None:
    """Numbers from the command line, such as 0.49,0.48,0.45."""
    try:
        return [float(part) for part in text.split(",")] if text else None
    except ValueError:
        raise ConfigError(f"{option}: {text!r} given; expected numbers such as 0.49,0.48,0.45") from None


def main() -> None:
    """Run the command line; known errors end with one message and exit status 1."""
    with suppress(AttributeError):  # a terminal without Unicode shows what it can; a stream may be closed
        sys.stdout.reconfigure(errors="replace")
    try:
        app(prog_name="robust-flatness")
    except (RobustFlatnessError, OSError) as error:  # OSError: a full disk, a folder without permission
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
