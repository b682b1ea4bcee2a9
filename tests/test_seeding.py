"""Random streams: independent, repeatable, named."""

import random
import subprocess
import sys

import numpy as np
import torch

from robust_flatness.seeding import derive_seed, generator


def test_streams_of_different_names_differ():
    names = [(), ("a",), ("b",), ("a", "b"), ("b", "a"), ("a", 0), ("a", 1), ("a", 10), ("a", 1, 0)]
    seeds = [derive_seed(seed, *name) for seed in range(50) for name in names]
    assert len(set(seeds)) == len(seeds)


def test_seeds_are_the_same_in_every_process():
    """Python's own hash of a string changes from process to process; a stream must not."""
    code = "from robust_flatness.seeding import derive_seed; print(derive_seed(3, 'batches', 17))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == derive_seed(3, "batches", 17)


def test_global_states_are_left_alone():
    torch.manual_seed(0), np.random.seed(0), random.seed(0)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    torch.rand(3, generator=generator(1, "x"))
    derive_seed(1, "y")
    after = torch.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert (before[1] == after[1]).all()
    assert before[2] == after[2]


def test_neighbouring_streams_are_uncorrelated():
    """Correlation of two independent samples of n uniform numbers has a standard deviation 1/sqrt(n)."""
    n = 10_000
    draws = [torch.rand(n, generator=generator(0, "samples", index)) for index in range(20)]
    correlations = torch.corrcoef(torch.stack(draws))[torch.triu(torch.ones(20, 20), 1) == 1]
    assert correlations.abs().max() < 5 / n**0.5
