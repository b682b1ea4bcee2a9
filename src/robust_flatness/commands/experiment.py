"""Commands about a whole experiment."""

import json
from pathlib import Path
from typing import Annotated

import typer

from robust_flatness.commands.base import Seed, app
from robust_flatness.config import ConfigError, load_yaml
from robust_flatness.errors import noted_warnings
from robust_flatness.experiment import load_experiment
from robust_flatness.files import write_text


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
    with noted_warnings():
        text = written(data, output, name or output.stem, epsilon)
    write_text(output, text)
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
    from robust_flatness.experiment import schema as described

    typer.echo(json.dumps(described(), indent=1, sort_keys=True))
