"""Commands about whole experiments and their results."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from robust_flatness.commands.base import Checkpoints, Device, Seed, Threads, app, step
from robust_flatness.config import load_yaml
from robust_flatness.errors import ConfigError, noted_warnings
from robust_flatness.experiment import Experiment, load_experiment
from robust_flatness.experiment.experiment import unknown_variants
from robust_flatness.files import write_text


def _experiment(config: Path) -> Experiment:
    experiment = load_experiment(load_yaml(config))
    if experiment.spec.results_table is not None:
        raise ConfigError(f"{config}: starts from a results table; nothing is trained or measured")
    return experiment


@app.command()
def new_experiment(
    data: Annotated[Path, typer.Option(help="x_train, y_train, x_test, y_test, uint8 images (.npz).")],
    output: Annotated[Path, typer.Option(help="YAML file to write.")],
    name: Annotated[str, typer.Option(help="Name of the experiment; default: the file's.")] = "",
    epsilon: Annotated[str, typer.Option(help="Radius, e.g. 8/255; default: by the images' kind.")] = "",
) -> None:
    """Write a commented experiment for data of your own, with sizes that fit."""
    from robust_flatness.experiment.new import new_experiment as write

    if output.exists():
        raise ConfigError(f"--output: {output} exists; name another file")
    with noted_warnings():
        text = write(data, output, name or output.stem, epsilon)
    write_text(output, text)
    typer.echo(f"{output}: snakemake --cores all --configfile {output}")


@app.command()
def plan(
    config: Annotated[Path, typer.Option(help="Experiment.")] = Path("config/fashion.yaml"),
    device: Annotated[Literal["cpu", "cuda"] | None, typer.Option(help="Default: the experiment's.")] = None,
    workers: Annotated[list[int] | None, typer.Option(help="Concurrent jobs; default 1, 64.", min=1)] = None,
) -> None:
    """Estimate the cost of an experiment: jobs, hours, disk, memory."""
    from robust_flatness.run.planning import plan as cost_of

    typer.echo(cost_of(_experiment(config), device).text(workers or (1, 64)))


@app.command()
def verify(
    directory: Annotated[Path, typer.Argument(help="Results of an experiment, e.g. results/fashion.")],
    sample: Annotated[int, typer.Option(help="Networks to measure again; 0: all.", min=0)] = 2,
    seed: Annotated[int, typer.Option(help="Random seed of the sample.", min=0)] = 0,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Measure a sample of networks again from their checkpoints; exit status 1 if one differs by more than
    a tolerance."""
    from robust_flatness.run.verify import sample_files, verify_network
    from robust_flatness.runtime.devices import start

    device, status = start(device, threads), 0
    for path in sample_files(directory, sample or None, seed):
        agrees, message = verify_network(path, device, threads)
        typer.echo(message)
        status = status if agrees else 1
    raise typer.Exit(status)


@app.command()
def export(
    checkpoints: Checkpoints,
    directory: Annotated[Path, typer.Option(help="Folder for models/ and model_info/.")],
    dataset: Annotated[str, typer.Option(help="Name of the dataset, as RobustBench has it, e.g. cifar10.")],
) -> None:
    """Write checkpoints in RobustBench's form: weights (.pt), and a JSON description with accuracies."""
    from robust_flatness.run.export import export_checkpoint

    for path in checkpoints:
        for written in export_checkpoint(path, directory, dataset):
            typer.echo(written)


@app.command()
def dataset(
    tables: Annotated[list[Path], typer.Argument(help="Folders with the tables of experiments.")],
    output: Annotated[Path, typer.Option(help="Folder for the dataset.")] = Path("dataset"),
) -> None:
    """Write the records of experiments as one table (CSV, Parquet) with a dictionary."""
    from robust_flatness.tables.dataset import write_dataset

    typer.echo(f"{output}: {write_dataset(tables, output)} records")


@step
def spec(
    step: Annotated[str, typer.Argument(help="data, train, baseline, measure, or the name of a measure.")],
    config: Annotated[Path, typer.Option(help="Experiment.")] = Path("config/fashion.yaml"),
    variant: Annotated[str, typer.Option(help="Variant, for train and measures.")] = "at",
    seed: Seed = 0,
) -> None:
    """Print the settings of one step of an experiment as JSON."""
    from robust_flatness.workflow import measuring_job

    experiment = _experiment(config)
    if variant not in experiment.catalogue:
        raise ConfigError(f"variant: {unknown_variants([variant], experiment.catalogue)}")
    specs = {"data": experiment.spec.data, "baseline": experiment.baseline, **experiment.measures_of(variant)}
    if variant in experiment.train_jobs:
        specs["train"] = experiment.train_job(variant, seed)
    texts = {name: given.json_text() for name, given in specs.items()}
    texts["measure"] = measuring_job(experiment, variant)
    if step not in texts:
        known = ", ".join(texts)
        raise ConfigError(f"{step!r} is not a step of {variant!r} in {experiment.name}; use {known}")
    typer.echo(texts[step])


@step
def schema() -> None:
    """Print the JSON schema of an experiment's YAML, for editors (kept as config/schema.json)."""
    from robust_flatness.experiment import schema as json_schema

    typer.echo(json.dumps(json_schema(), indent=1, sort_keys=True))
