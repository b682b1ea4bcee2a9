import pytest

from robust_flatness.training.optimizers import Schedule


def rates(make_job, updates, **settings):
    job = make_job(**settings)
    schedule = Schedule(job.training, updates)
    return [schedule.learning_rate(i) for i in range(job.training.epochs * updates)], schedule


def test_multi_step_of_the_paper_drops_at_60_90_120(make_job):
    values, _ = rates(make_job, 1, epochs=150, learning_rate=0.05)
    assert [values[i] for i in (0, 59)] == [0.05] * 2
    assert [values[i] for i in (60, 89)] == pytest.approx([0.005] * 2)
    assert [values[i] for i in (90, 119)] == pytest.approx([0.0005] * 2)
    assert [values[i] for i in (120, 149)] == pytest.approx([0.00005] * 2)


def test_late_multi_step_drops_at_140_and_145(make_job):
    values, _ = rates(make_job, 1, epochs=150, learning_rate=1, milestones=(140 / 150, 145 / 150))
    drops = [i for i in range(1, 150) if values[i] != values[i - 1]]
    assert drops == [140, 145]


def test_drops_fall_on_epochs_not_within(make_job):
    values, _ = rates(make_job, 7, epochs=10, learning_rate=1, milestones=(0.4,))
    assert values[:28] == [1] * 28
    assert values[28:] == pytest.approx([0.1] * 42)


def test_constant_stays(make_job):
    values, schedule = rates(make_job, 3, schedule="constant", learning_rate=0.01)
    assert set(values) == {0.01}
    assert schedule.momentum(4) == 0.9


@pytest.mark.parametrize("cycles", [1, 2, 4])
def test_cycles_run_from_zero_to_the_peak_and_back(make_job, cycles):
    updates, epochs = 5, 12 * cycles
    values, schedule = rates(
        make_job, updates, schedule="cyclic", cycles=cycles, epochs=epochs, learning_rate=0.2
    )
    length = updates * epochs // cycles
    for cycle in range(cycles + 1):
        assert schedule.learning_rate(cycle * length) == 0
        assert schedule.momentum(cycle * length) == pytest.approx(0.9)
    for cycle in range(cycles):
        middle = cycle * length + length // 2
        assert schedule.learning_rate(middle) == pytest.approx(0.2)
        assert schedule.momentum(middle) == pytest.approx(0.8)
        quarter = cycle * length + length / 4
        assert schedule.learning_rate(quarter) == pytest.approx(0.1)
        assert schedule.momentum(quarter) == pytest.approx(0.85)
    rising = values[: length // 2 + 1]
    assert rising == sorted(rising)
    assert max(values) == pytest.approx(0.2)
