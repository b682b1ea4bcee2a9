"""`measure`, for a network of one's own."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from robust_flatness.commands.base import Device, Seed, Threads, app, numbers, positive
from robust_flatness.config import ConfigError, meant, parse_list
from robust_flatness.config.measures import STEPS_TO_THE_EDGE
from robust_flatness.config.values import Precision
from robust_flatness.errors import noted_warnings
from robust_flatness.files import write_json
from robust_flatness.measures.sharpness.block import NAMES
from robust_flatness.runtime.progress import shown

Scope = Literal["dataset", "batch"]


@app.command()
def measure(
    model: Annotated[
        str, typer.Option(help="package.module:function, torchvision:NAME or robustbench:NAME.")
    ],
    data: Annotated[
        str,
        typer.Option(
            help="x_test, y_test, perhaps x_train, y_train (.npz); a folder with a subfolder of images for "
            "each class, perhaps below train and test; torchvision:NAME:FOLDER, e.g. torchvision:SVHN:data."
        ),
    ],
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
    size: Annotated[
        int | None,
        typer.Option(
            help="Side of images in a folder or of torchvision: scaled, cropped in the middle.", min=1
        ),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Download a dataset of torchvision that is not there.")
    ] = False,
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
        str, typer.Option(help="AutoAttack with these alone; for few classes apgd-ce,fab-t,square.")
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
    from robust_flatness.measuring.own_model import (
        example_table,
        measure_network,
        own_data,
        own_images,
        own_specs,
        told_of_images,
    )
    from robust_flatness.measuring.place import Others, described
    from robust_flatness.runtime.devices import start
    from robust_flatness.tables.rows import write_rows

    names = [*parse_list(measures), *(["layers"] if per_layer or per_layer_worst else [])]
    names += ["sharpness"] * bool(sharpness and "sharpness" not in names)
    if "sharpness" in names and not train_examples:
        raise ConfigError(
            "--sharpness: it is measured on training examples; say how many by --train-examples"
        )
    check_outputs({"--output": output, "--picture": picture, "--per-example": per_example})
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
    with noted_warnings() as notes:
        if Path(data).is_dir() or data.startswith("torchvision:"):
            dataset, count, read = own_images(data, examples, train_examples, size, download)
            typer.echo(told_of_images(read), err=True)
        elif size or download:
            raise ConfigError(
                f"--size, --download: given, but {data} is no folder of images and not torchvision's"
            )
        else:
            (dataset, count), read = own_data(Path(data), examples), None
    implied = {"epsilon": radius, "step_size": step, "sizes": {"test": count, "train": train_examples}}
    specs = own_specs(names, implied, blocks, {"batch_size": batch_size, "precision": precision})
    network = load_model(model, weights, mean=numbers("--mean", mean), std=numbers("--std", std))
    kept = next((path for path in (output, picture, per_example) if path), None)
    with shown(lines=True):
        result = measure_network(
            network, dataset, specs, seed=seed, device=device,
            state=kept and kept.parent / ".resume" / kept.stem,
            report=lambda message: typer.echo(message, err=True),
        )  # fmt: skip
    result |= {"model": model, "weights": str(weights) if weights else None, "data": data}
    result |= {"images": read} if read else {}
    result["warnings"] = [*notes, *result["warnings"]]
    if output:
        write_json(output, result)
    if per_example:
        write_rows(per_example, example_table(result))
    typer.echo(described(result, others))
    if picture:
        from robust_flatness.plotting.own_model import draw

        draw(picture, result, others, weights.stem if weights else model)
        typer.echo(f"\n{picture}")


def check_outputs(paths: dict[str, Path | None]) -> None:
    """Refuse, before anything is measured, what cannot be written, or would replace a device."""
    seen: dict[Path, str] = {}
    for option, path in paths.items():
        if path is None:
            continue
        if path.exists() and not path.is_file():
            raise ConfigError(f"{option}: {path} given, which is a folder or a device; name a file")
        twin = seen.setdefault(path.resolve(), option)
        if twin != option:
            raise ConfigError(f"{option}: {path} given for {twin}, too; name another file")
        path.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(path.parent, os.W_OK):
            raise ConfigError(f"{option}: {path.parent} cannot be written to; name another folder")


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
