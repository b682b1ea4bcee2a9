"""One command per step of the workflow."""

from pathlib import Path
from typing import Annotated

import typer

from robust_flatness.commands.base import Checkpoints, Data, Device, Output, Seed, Spec, Threads, parsed, step
from robust_flatness.config import DataSpec, TrainJob
from robust_flatness.config.data import CIFAR10_FOLDER, CLASSES
from robust_flatness.config.networks import NetworkSpec
from robust_flatness.errors import noted_warnings
from robust_flatness.runtime.progress import show_progress

Name = Annotated[str, typer.Option(help="Name of the network in tables.")]
Folder = Annotated[Path, typer.Option(help="Folder of the network: checkpoints/, records.csv.")]


@step
def prepare(spec: Spec, output: Output, seed: Seed = 0) -> None:
    """Read a dataset, draw its disjoint splits, and write them to one safetensors file."""
    from robust_flatness.data import make_splits, save_dataset

    with noted_warnings():
        splits = make_splits(parsed(DataSpec, spec), seed)
    save_dataset(output, splits)


@step
def download_cifar10() -> None:
    """Download CIFAR-10 to `data/cifar10` by torchvision, which verifies its checksum."""
    from robust_flatness.data.cifar10 import download_cifar10 as download

    download(Path(CIFAR10_FOLDER))


@step
def pseudo_label(
    spec: Spec, data: Data, output: Output, seed: Seed = 0, device: Device = "cpu", threads: Threads = 1
) -> None:
    """Train a standard classifier on the labelled images and label the unlabelled pool with it."""
    from robust_flatness.data.dataset import load_dataset, save_pseudo_labels
    from robust_flatness.runtime.devices import start
    from robust_flatness.training.pseudo_labels import pseudo_label as predict

    job, device = parsed(TrainJob, spec), start(device, threads)
    dataset = load_dataset(data)
    save_pseudo_labels(output, predict(dataset, job.model, job.training, seed, device), dataset)


@step
def train(
    spec: Spec,
    data: Data,
    directory: Annotated[Path, typer.Option(help="Folder for history and checkpoints.")],
    pseudo_labels: Annotated[Path | None, typer.Option(help="Pseudo-labels of the pool.")] = None,
    all_snapshots: Annotated[bool, typer.Option("--all-snapshots/--best-and-last", help="Snapshots.")] = True,
    until: Annotated[int | None, typer.Option(help="Stop after this number of epochs.", min=1)] = None,
    device: Device = "cpu",
    threads: Threads = 1,
) -> None:
    """Train one variant; resumes where an earlier run of the same settings was interrupted."""
    from robust_flatness.data.dataset import load_dataset, load_pseudo_labels
    from robust_flatness.run.train import train as run_training
    from robust_flatness.runtime.devices import start

    job, device = parsed(TrainJob, spec), start(device, threads)
    dataset = load_dataset(data)
    labels = load_pseudo_labels(pseudo_labels, dataset) if pseudo_labels else None
    options = {"all_snapshots": all_snapshots, "until": until, "device": device}
    with show_progress():
        run_training(job, dataset, directory, pseudo_labels=labels, **options)


@step
def scale(
    checkpoints: Checkpoints,
    factor: Annotated[float, typer.Option(help="Factor for all convolutions.")],
    variant: Annotated[str, typer.Option(help="Name of the derived model.")],
    directory: Annotated[Path, typer.Option(help="Folder for the scaled checkpoints.")],
) -> None:
    """Scale convolutions and the batch norms' statistics with them: same function, other weights."""
    from robust_flatness.measures.scaling import scale_checkpoint

    for path in checkpoints:
        scale_checkpoint(path, directory / path.name, factor, variant)


@step
def check_network(
    spec: Spec, name: Name, data_spec: Annotated[str, typer.Option(help="Settings of the dataset as JSON.")]
) -> None:
    """Check that an external network can be loaded and, for a dataset of the kit, takes its images and has
    its number of classes, before anything is run."""
    import torch

    from robust_flatness.loading import load_network

    data = parsed(DataSpec, data_spec, "--data-spec")
    channels, side = data.shape
    images = torch.full((2, channels, side, side), 0.5) if data.name in CLASSES else None
    load_network(parsed(NetworkSpec, spec), name, images, data.known_classes)


@step
def import_network(spec: Spec, data: Data, output: Output, name: Name, seed: Seed = 0) -> None:
    """Load an external network, check that it fits the data, and write it as a checkpoint."""
    from robust_flatness.checkpoints import import_network as run_import
    from robust_flatness.data import load_dataset

    run_import(parsed(NetworkSpec, spec), load_dataset(data), output, name, seed)


@step
def measure_network(
    spec: Spec, data: Data, directory: Folder, seed: Seed = 0, device: Device = "cpu", threads: Threads = 1
) -> None:
    """Apply all measures to the checkpoints of one network; resumes where an earlier run was interrupted."""
    from robust_flatness.run.measuring import MeasuringJob
    from robust_flatness.run.measuring import measure_network as measure
    from robust_flatness.runtime.devices import start

    measure(parsed(MeasuringJob, spec), data, directory, seed, start(device, threads), threads)


@step
def collect(
    spec: Spec, directory: Annotated[Path, typer.Option(help="Folder of the experiment's results.")]
) -> None:
    """Gather the records of all networks into the tables of the experiment."""
    from robust_flatness.tables.collect import CollectSpec, collect_results

    for message in collect_results(parsed(CollectSpec, spec), directory):
        typer.echo(message)


@step
def import_table(
    table: Annotated[Path, typer.Argument(help="Results table (.csv) in the form of models.csv.")],
    directory: Annotated[Path, typer.Option(help="Folder for the tables.")],
) -> None:
    """Turn a table of results, and the tables beside it, into records."""
    from robust_flatness.tables.importing import import_table as run_import

    run_import(table, directory)
