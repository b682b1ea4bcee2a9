"""The command `measure`, for a network of the user's own."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from robust_flatness.commands.base import app
from robust_flatness.config.values import Epsilon, Precision, Real, parse, parse_list
from robust_flatness.errors import ConfigError, noted_warnings
from robust_flatness.files import portable, write_json
from robust_flatness.measures.examples import BATCH_SIZE
from robust_flatness.measures.flatness import AVERAGE
from robust_flatness.measures.registry import MEASURES
from robust_flatness.measures.robustness import RobustnessSettings
from robust_flatness.runtime.progress import shown

#: Settings of PGD in the measures of robustness and flatness.
PGD = RobustnessSettings.model_fields["attack"].default
NAMES = [name for name, entry in MEASURES.items() if not entry.of_snapshots]
PICTURES = (".png", ".pdf", ".svg")
#: Panels of the help.
NETWORK, DATA, MEASURED, RESULTS, COMPUTATION = (
    "Network", "Data", "What is measured", "Results", "Computation",
)  # fmt: skip


def option(panel: str, text: str, *names: str, **settings: Any) -> Any:
    """Return an option that is listed in a panel of the help."""
    return typer.Option(*names, help=text, rich_help_panel=panel, **settings)


@app.command()
def measure(
    model: Annotated[str, option(NETWORK, "package.module:function, torchvision:NAME or robustbench:NAME.")],
    data: Annotated[
        str,
        option(
            DATA,
            "x_test, y_test and optionally x_train, y_train (.npz); a folder with a subfolder of images "
            "per class, or with such folders test and train; torchvision:NAME:FOLDER.",
        ),
    ],
    epsilon: Annotated[str, option(MEASURED, "Radius of the L-infinity ball, e.g. 8/255.")],
    weights: Annotated[Path | None, option(NETWORK, "Weights (.safetensors, .pt, .pth).")] = None,
    mean: Annotated[str, option(NETWORK, "Channel means, if the network expects normalised images.")] = "",
    std: Annotated[str, option(NETWORK, "Channel standard deviations, likewise.")] = "",
    examples: Annotated[
        int | None, option(DATA, "Test examples.", min=1, show_default="1000, or all")
    ] = None,
    train_examples: Annotated[int, option(DATA, "Training examples.", min=0)] = 0,
    size: Annotated[int | None, option(DATA, "Side to which images are resized and cropped.", min=1)] = None,
    download: Annotated[bool, option(DATA, "Download a dataset of torchvision.", "--download")] = False,
    measures: Annotated[str, option(MEASURED, f"Some of {', '.join(NAMES)}.")] = "robustness,flatness",
    per_layer: Annotated[
        bool, option(MEASURED, "Short for the measure layers: one layer perturbed at a time.", "--per-layer")
    ] = False,
    steps: Annotated[
        int | None, option(MEASURED, "Iterations of PGD.", min=1, show_default=str(PGD["steps"]))
    ] = None,
    restarts: Annotated[
        int | None, option(MEASURED, "Restarts of PGD.", min=1, show_default=str(PGD["restarts"]))
    ] = None,
    samples: Annotated[
        int | None,
        option(MEASURED, "Samples of average-case flatness.", min=1, show_default=str(AVERAGE.samples)),
    ] = None,
    autoattack: Annotated[bool, option(MEASURED, "Also run AutoAttack (standard).", "--autoattack")] = False,
    assignments: Annotated[
        list[str] | None,
        option(
            MEASURED,
            "Any setting as in an experiment's YAML, e.g. flatness.average.xi=[0.5], or without the "
            "measure for all that have it: attack.step_size=0.01, autoattack.version=reduced (repeatable).",
            "--set",
        ),
    ] = None,
    output: Annotated[Path | None, option(RESULTS, "All records (.json).")] = None,
    per_example: Annotated[Path | None, option(RESULTS, "Losses and errors of each example (.csv).")] = None,
    picture: Annotated[
        Path | None, option(RESULTS, f"RLoss against average-case flatness ({', '.join(PICTURES)}).")
    ] = None,
    against: Annotated[
        Path | None, option(RESULTS, "Experiment to rank the network in (results/NAME, or a models.csv).")
    ] = None,
    seed: Annotated[int, option(COMPUTATION, "Random seed.", min=0)] = 0,
    batch_size: Annotated[
        int | None, option(COMPUTATION, "Examples per pass.", min=1, show_default=str(BATCH_SIZE))
    ] = None,
    device: Annotated[str, option(COMPUTATION, "auto, cpu, cuda, cuda:N or mps.")] = "cpu",
    precision: Annotated[
        Precision, option(COMPUTATION, "Precision of attacks; auto: bfloat16 if the device is fast at it.")
    ] = "float32",
    threads: Annotated[int, option(COMPUTATION, "Threads of torch; rounding depends on them.", min=1)] = 1,
) -> None:
    """Measure robustness and flatness of a network of your own, and rank it among others.

    The network maps inputs in [0, 1] of shape (n, C, H, W) to logits (n, K). With a file of results, an
    interrupted run resumes.
    """
    from robust_flatness import load_model
    from robust_flatness.run.own_model import example_rows, measure_model, own_settings, read_source
    from robust_flatness.run.place import ModelGroup, described
    from robust_flatness.runtime.devices import start
    from robust_flatness.tables.rows import write_rows

    files = {"--output": output, "--picture": picture, "--per-example": per_example}
    names = [*parse_list(measures), *["layers"] * per_layer]
    check_files(files, names)
    radius = parse(Epsilon, epsilon, "--epsilon")
    options = {
        "attack.steps": steps, "attack.restarts": restarts, "average.samples": samples,
        "batch_size": batch_size, "average.batch_size": batch_size, "worst.batch_size": batch_size,
        "precision": precision, "autoattack": {} if autoattack else None,
    }  # fmt: skip
    options = {path: value for path, value in options.items() if value is not None}
    groups = [ModelGroup.printed(), *([ModelGroup.read(against)] if against else [])]
    device = start(device, threads)
    with noted_warnings() as notes:
        source = read_source(data, examples, train_examples, size, download)
        if source.images:
            typer.echo(source.text, err=True)
        sizes = {"test": source.examples, "train": train_examples}
        settings = own_settings(names, radius, sizes, options, assignments or ())
        network = load_model(model, weights, mean=_numbers("--mean", mean), std=_numbers("--std", std))
    code = [] if model.startswith(("torchvision:", "robustbench:")) else [model]
    first = next((path for path in files.values() if path), None)
    with shown(lines=True):
        result, values = measure_model(
            network, source.dataset, settings, seed=seed, device=device,
            folder=first and first.parent / ".resume" / first.stem, code=code,
            report=lambda message: typer.echo(message, err=True),
        )  # fmt: skip
    result |= {"model": model, "weights": weights and str(weights), "data": data, "images": source.images}
    result["warnings"] = [*notes, *result["warnings"]]
    if output:
        write_json(output, portable(result))
    if per_example:
        write_rows(per_example, example_rows(values))
    typer.echo(described(result, groups))
    if picture:
        from robust_flatness.plotting.own_model import draw

        draw(picture, result, groups, weights.stem if weights else model)
        typer.echo(f"\n{picture}")


def check_files(files: dict[str, Path | None], measures: list[str]) -> None:
    """Raise `ConfigError` for files that cannot be written, or a picture that cannot be drawn."""
    for option_name, path in files.items():
        if path is None:
            continue
        if path.exists() and not path.is_file():
            raise ConfigError(f"{option_name}: {path} is a folder or a device; name a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise ConfigError(f"{option_name}: {path.parent} cannot be written to")
    picture = files["--picture"]
    if picture and picture.suffix not in PICTURES:
        raise ConfigError(f"--picture: {picture} given; expected a file {', '.join(PICTURES)}")
    if picture and not {"robustness", "flatness"} <= {*measures}:
        raise ConfigError("--picture: needs robustness and flatness among --measures")


def _numbers(name: str, text: str) -> tuple[float, ...] | None:
    return parse(tuple[Real, ...], parse_list(text), name) if text else None
