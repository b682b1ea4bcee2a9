"""The robust loss along directions in weight space."""

import pytest

from robust_flatness.attacks import PGD
from robust_flatness.config import AttackSpec
from robust_flatness.flatness import loss_landscape
from robust_flatness.measures.landscape import CURVES, LandscapeSettings
from robust_flatness.seeding import generator


def test_landscape_at_zero_is_rloss(trained, held_out):
    attack = PGD(0.1, 0.05, 3)
    settings = LandscapeSettings(
        points=3, random_directions=3, adversarial_directions=2, adversarial_steps=3, examples=60,
        attack=AttackSpec(epsilon=0.1, step_size=0.05, steps=3),
    )  # fmt: skip
    few = (held_out[0][:10], held_out[1][:10])
    rows = loss_landscape(trained, *held_out, settings=settings, held_out=few, seed=2)
    assert len(rows) == 3 * len(CURVES)
    assert {(row["direction"], row["normalisation"]) for row in rows} == CURVES.keys()
    rloss = attack(trained, *held_out, generator=generator(2, "landscape starts")).loss.mean().item()
    assert all(row["rloss"] == pytest.approx(rloss, rel=1e-6) for row in rows if row["s"] == 0)
    scales = {row["direction"]: row["scale"] for row in rows}
    assert scales == {"random": 0.5, "adversarial": 0.025, "hessian": 0.5}
    ends = [row for row in rows if row["s"] != 0 and row["direction"] == "random"]
    assert all(row["rloss"] > rloss and row["rloss_std"] > 0 for row in ends)
    up = next(r for r in rows if (r["direction"], r["normalisation"], r["s"]) == ("adversarial", "layer", 1))
    assert up["rloss"] > rloss
    assert up["rloss_std"] is None
