"""Whether an experiment's attacks have converged: more restarts of PGD, and the standard AutoAttack.

    python benchmarks/convergence.py config/fashion.yaml [--results results] [--write docs/method.md]
        [--examples 128] [--variants at trades-6]

RLoss and RErr of the baseline over numbers of restarts, and RErr of six variants by the experiment's
AutoAttack and by the standard one, on the early-stopping images: budgets are chosen without a look at the
test images. The trainings have to be there (`snakemake ... train`). With --write the tables replace what
stands between `<!-- convergence NAME -->` and `<!-- end of convergence NAME -->` in that file.
"""

import argparse
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from robust_flatness.attacks.found import better
from robust_flatness.checkpoints import load_checkpoint
from robust_flatness.config import load_yaml
from robust_flatness.data import load_dataset
from robust_flatness.evaluation import evaluate_robustness
from robust_flatness.experiment import load_experiment
from robust_flatness.measures.base import pgd
from robust_flatness.seeding import generator

VARIANTS = ("at", "awp-0.01", "trades-6", "self-supervision-4", "label-smoothing-0.3", "entropy-sgd-1")


def restarts_table(checkpoint, spec, x, y) -> str:
    """RLoss and RErr by PGD over restarts: powers of two up to those used, then twice and four times as many;
    each row has the restarts of the one above, and more. Changes are from half as many restarts."""
    net, random = checkpoint.network, generator(0, "convergence")
    once = replace(pgd(spec.attack, spec.precision), restarts=1)
    lines = [
        f"| restarts of PGD-{spec.attack.steps} | RLoss | change on doubling | RErr (%) |",
        "| --- | --- | --- | --- |",
    ]
    found, used, losses = None, spec.attack.restarts, {}
    shown = {*(2**power for power in range(used.bit_length())), used, 2 * used, 4 * used}
    for count in range(1, 4 * used + 1):
        new = once(net, x, y, spec.batch_size, random)
        found = better(found, new) if found else new
        losses[count] = loss = found.loss.double().mean().item()
        if count in shown:
            change = "" if count % 2 else f"{100 * (loss / losses[count // 2] - 1):.1f} %"
            mark = " (used)" if count == used else ""
            error = 100 * found.error.double().mean().item()
            lines.append(f"| {count}{mark} | {loss:.3f} | {change} | {error:.1f} |")
    return "\n".join(lines)


def autoattack_table(checkpoints, spec, x, y) -> str:
    """RErr by PGD, the experiment's AutoAttack and the standard one, with their processor time."""
    lines = [
        "| variant | RErr (%), PGD | AutoAttack as used | standard | more | seconds, used | standard |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    attack = pgd(spec.attack, spec.precision)
    for slug, checkpoint in checkpoints.items():
        errors, seconds = [], []
        for autoattack in (spec.autoattack, True):
            started = time.process_time()
            result = evaluate_robustness(
                checkpoint.network, x, y, attack=attack, autoattack=autoattack, batch_size=spec.batch_size
            )
            seconds.append(time.process_time() - started)
            errors.append(100 * result.rerr_aa)
            by_pgd = 100 * result.rerr_pgd
        used, standard = errors
        lines.append(
            f"| `{slug}` | {by_pgd:.1f} | {used:.1f} | {standard:.1f} | {standard - used:+.1f} "
            f"| {seconds[0]:.0f} | {seconds[1]:.0f} |"
        )
    return "\n".join(lines)


def written(text: str, name: str, tables: str) -> str:
    """`text` with `tables` between the two marks of `name`."""
    first, last = f"<!-- {name} -->", f"<!-- end of {name} -->"
    pattern = re.compile(f"{re.escape(first)}.*?{re.escape(last)}", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"error: the marks {first} and {last} are missing; add them where the tables belong")
    return pattern.sub(lambda _: f"{first}\n{tables}\n{last}", text)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("config", type=Path)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--seed", type=int, default=None, help="the experiment's first one by default")
    parser.add_argument("--examples", type=int, default=None, help="the first so many; all by default")
    parser.add_argument("--variants", nargs="+", default=VARIANTS, metavar="VARIANT")
    parser.add_argument("--write", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    experiment = load_experiment(load_yaml(arguments.config))
    seed = experiment.spec.seeds[0] if arguments.seed is None else arguments.seed
    spec, folder = experiment.spec.measures.robustness, arguments.results / experiment.name
    dataset = load_dataset(folder / f"data/seed-{seed}.safetensors")
    x, y = (
        part[: arguments.examples]
        for part in (dataset.images("early_stopping"), dataset.labels("early_stopping"))
    )
    checkpoints = {
        slug: load_checkpoint(folder / slug / f"seed-{seed}/checkpoints/last.safetensors")
        for slug in arguments.variants
    }
    tables = (
        f"`{experiment.name}`: last checkpoints of seed {seed}, {len(x)} early-stopping images.\n\n"
        f"{restarts_table(checkpoints['at'], spec, x, y)}\n\n"
        f"AutoAttack as used: {spec.autoattack.description.removeprefix('AutoAttack ').strip('()')}.\n\n"
        f"{autoattack_table(checkpoints, spec, x, y)}"
    )
    print(tables)
    if arguments.write is not None:
        text = written(arguments.write.read_text(), f"convergence {experiment.name}", tables)
        arguments.write.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
