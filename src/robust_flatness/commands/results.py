"""Commands on results."""

from pathlib import Path
from typing import Annotated

import typer

from robust_flatness.commands.base import Checkpoints, Device, Threads, app, read_spec
from robust_flatness.runtime.progress import shown, told


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
    from robust_flatness.robustbench import export_checkpoint

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
    from robust_flatness.measuring import verify as verification
    from robust_flatness.runtime.devices import start

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
