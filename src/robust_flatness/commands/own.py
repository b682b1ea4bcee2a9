"""The command `measure`, for a user's network."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from robust_flatness.commands.base import app
from robust_flatness.config.kinds import imported
from robust_flatness.config.measures import BATCH_SIZE
from robust_flatness.config.networks import LIBRARIES
from robust_flatness.config.values import Epsilon, Norm, Positive, Precision, Real, parse, parse_list
from robust_flatness.errors import ConfigError, noted_warnings
from robust_flatness.files import write_rows, write_text
from robust_flatness.measures.flatness import AVERAGE
from robust_flatness.measures.registry import MEASURES
from robust_flatness.measures.robustness import RobustnessSettings
from robust_flatness.runtime.progress import show_progress

#: PGD in the measures of robustness and flatness.
PGD = RobustnessSettings.model_fields["attack"].default
NAMES = ", ".join(name for name, entry in MEASURES.items() if not entry.of_snapshots)
#: Measures that take no loss of the user's own.
CROSS_ENTROPY_ONLY = {"sharpness", "curvature", "density"}
PICTURES = (".png", ".pdf", ".svg")
MODELS = "package.module:function, torchvision:NAME, robustbench:NAME, or a checkpoint of the kit."
DRAWN = "The measure plane, or else density, or else RLoss against flatness (.png, .pdf, .svg)."
SOURCES = (
    "An .npz file of x_test, y_test and optionally x_train, y_train; a folder with a subfolder of images per "
    "class, or with such folders test and train; torchvision:NAME:FOLDER."
)
ASSIGNMENTS = (
    "Any setting as in an experiment's YAML, e.g. flatness.average.xi=[0.5]; without the measure's name, for "
    "all that have it: attack.step_size=0.01, autoattack.version=reduced (repeatable)."
)
SNAPSHOT = "Weights after an epoch of the training; in its order, for the measure plane (repeatable)."
LOSS = "package.module:function from logits (n, K) and labels (n) to losses (n), to measure and attack."


def _option(panel: str, text: str, *names: str, default: Any = None, **settings: Any) -> Any:
    shown = True if default is None else str(default)
    return typer.Option(*names, help=text, rich_help_panel=panel, show_default=shown, **settings)


# options by their panel in the help
network, data_, measured, results, computation = (
    partial(_option, panel)
    for panel in ("Network", "Data", "What is measured", "Results", "Computation")
)  # fmt: skip


@app.command()
def measure(
    model: Annotated[str, network(MODELS)],
    data: Annotated[str, data_(SOURCES)],
    epsilon: Annotated[str, measured("Radius of the attack's ball, e.g. 8/255.")],
    norm: Annotated[Norm, measured("Norm of the ball: linf or l2.")] = "linf",
    weights: Annotated[Path | None, network("Weights (.safetensors, .pt, .pth), or FILE:KEY.")] = None,
    snapshot: Annotated[list[Path] | None, network(SNAPSHOT)] = None,
    mean: Annotated[str, network("Channel means, if the network expects normalised images.")] = "",
    std: Annotated[str, network("Channel standard deviations, likewise.")] = "",
    examples: Annotated[int | None, data_("Test examples.", min=1, default="1000, or all")] = None,
    train_examples: Annotated[int, data_("Training examples.", min=0)] = 0,
    size: Annotated[int | None, data_("Side to which images are resized and cropped.", min=1)] = None,
    download: Annotated[bool, data_("Download a dataset of torchvision.", "--download")] = False,
    measures: Annotated[str, measured(f"Some of {NAMES}.")] = "robustness,flatness",
    loss: Annotated[str, measured(LOSS, default="cross-entropy")] = "",
    per_layer: Annotated[bool, measured("Short for the measure layers.", "--per-layer")] = False,
    steps: Annotated[int | None, measured("Steps of PGD.", min=1, default=PGD["steps"])] = None,
    restarts: Annotated[int | None, measured("Restarts of PGD.", min=1, default=PGD["restarts"])] = None,
    samples: Annotated[int | None, measured("Average-case samples.", min=1, default=AVERAGE.samples)] = None,
    autoattack: Annotated[bool, measured("Also run AutoAttack (standard).", "--autoattack")] = False,
    assignments: Annotated[list[str] | None, measured(ASSIGNMENTS, "--set")] = None,
    output: Annotated[Path | None, results("All records (.json).")] = None,
    per_example: Annotated[Path | None, results("Losses and errors of each example (.csv).")] = None,
    picture: Annotated[Path | None, results(DRAWN)] = None,
    against: Annotated[Path | None, results("Experiment to rank it in: results/NAME or models.csv.")] = None,
    seed: Annotated[int, computation("Random seed.", min=0)] = 0,
    batch_size: Annotated[int | None, computation("Examples per pass.", min=1, default=BATCH_SIZE)] = None,
    device: Annotated[str, computation("auto, cpu, cuda, cuda:N or mps.")] = "cpu",
    precision: Annotated[Precision, computation("Of attacks; auto: bfloat16 where it is fast.")] = "float32",
    threads: Annotated[int, computation("Threads of torch; rounding depends on them.", min=1)] = 1,
) -> None:
    """Measure robustness and flatness of a network of your own, and rank it among others.

    The network maps inputs in [0, 1] of shape (n, C, H, W) to logits (n, K). With a file of results, an
    interrupted run resumes.
    """
    from robust_flatness import load_model
    from robust_flatness.checkpoints import load_checkpoint
    from robust_flatness.run.measuring import example_rows
    from robust_flatness.run.own_inputs import own_settings, read_source
    from robust_flatness.run.own_model import measure_model
    from robust_flatness.run.place import ModelGroup, described
    from robust_flatness.runtime.devices import start

    names = [*parse_list(measures), *["layers"] * per_layer]
    for path in filter(None, (output, picture, per_example)):
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path} is a folder or a device; name a file for the results")
    drawn = {"plane", "density"} & {*names} or {"robustness", "flatness"} <= {*names}
    if picture and (picture.suffix not in PICTURES or not drawn):
        needed = f"a file {', '.join(PICTURES)}, and --measures plane, density, or robustness,flatness"
        raise ConfigError(f"--picture: {picture} given; expected {needed}")
    if autoattack and "robustness" not in names:
        raise ConfigError("--autoattack: it belongs to the measure robustness; add it to --measures")
    if loss:
        imported(loss, "--loss")
    if loss and (CROSS_ENTROPY_ONLY & {*names} or (picture and "plane" not in names)):
        refused = f"{', '.join(sorted(CROSS_ENTROPY_ONLY))}, and --picture but of plane"
        raise ConfigError(f"--loss: {refused}, are for the cross-entropy only")
    if snapshot and ("plane" not in names or len(snapshot) < 2):
        raise ConfigError("--snapshot: give two or more, and plane among --measures")
    options = {
        "attack.steps": steps, "attack.restarts": restarts, "average.samples": samples,
        "batch_size": batch_size, "average.batch_size": batch_size, "worst.batch_size": batch_size,
        "precision": precision, "robustness.autoattack": {} if autoattack else None,
        "plane.directions": "snapshots" if snapshot else None,
    }  # fmt: skip
    radius = parse(Epsilon if norm == "linf" else Positive, epsilon, "--epsilon")
    groups = [ModelGroup.printed(), *([ModelGroup.read(against)] if against else [])]
    device = start(device, threads)
    with noted_warnings() as notes:
        dataset, count, images = read_source(data, examples, train_examples, size, download)
        for name, values in (images or {}).items():
            typer.echo(f"{name}: {', '.join(f'{key} {value}' for key, value in values.items())}", err=True)
        sizes = {"test": count, "train": train_examples}
        settings = own_settings(names, radius, sizes, options, assignments or (), norm)
        normalisation = {
            name: parse(tuple[Real, ...], parse_list(text), f"--{name}") if text else None
            for name, text in (("mean", mean), ("std", std))
        }
        checkpoint = Path(model).suffix == ".safetensors"
        if checkpoint and any((weights, mean, std)):
            raise ConfigError(f"--model: {model} is a checkpoint; it needs no --weights, --mean, --std")
        loaded = load_checkpoint(Path(model)) if checkpoint else load_model(model, weights, **normalisation)
        own = not (checkpoint or model.startswith(LIBRARIES))
        snapshots = [
            load_checkpoint(path).model if checkpoint else load_model(model, path, **normalisation)
            for path in snapshot or ()
        ]
    first = output or picture or per_example
    with show_progress():
        result, values = measure_model(
            loaded, dataset, settings, seed=seed, device=device,
            folder=first and first.parent / ".resume" / first.stem,
            code=[model] if own else [], loss=loss, snapshots=snapshots,
            report=partial(typer.echo, err=True),
        )  # fmt: skip
    result |= {"model": model, "weights": weights and str(weights), "data": data, "images": images}
    if snapshot:
        result["snapshots"] = [*map(str, snapshot)]
    if own and weights is None:
        notes.append(f"no --weights: the network is measured as {model} returns it")
        typer.echo(f"warning: {notes[-1]}", err=True)
    result["warnings"] = [*notes, *result["warnings"]]
    if output:
        write_text(output, json.dumps(result, indent=2, sort_keys=True) + "\n")
    if per_example:
        write_rows(per_example, example_rows(values))
    typer.echo(described(result, groups))
    if picture:
        from robust_flatness.plotting.own_model import draw

        draw(picture, result, groups, weights.stem if weights else model)
        typer.echo(f"\n{picture}")
