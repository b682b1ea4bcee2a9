import pytest

from robust_flatness.training.optimizers import Schedule


def rates(make_job, updates, **settings):
    job = make_job(**settings)
    schedule = Schedule(job.training, updates)
    return [schedule.learning_rate(i) for i in range(job.training.epochs * updates)], schedule


@pytest.mark.parametrize(
    ("epochs", "milestones", "drops"),
    [(150, (0.4, 0.6, 0.8), (60, 90, 120)), (150, (140 / 150, 145 / 150), (140, 145)), (10, (0.4,), (4,))],
)
def test_multi_step_drops_by_ten_at_the_first_update_of_a_milestones_epoch(
    make_job, epochs, milestones, drops
):
    values, _ = rates(make_job, 7, epochs=epochs, learning_rate=1, milestones=milestones)
    expected = [0.1 ** sum(update // 7 >= drop for drop in drops) for update in range(7 * epochs)]
    assert values == pytest.approx(expected)


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
    for cycle in range(cycles):
        for part, height in ((0, 0), (1 / 4, 0.5), (1 / 2, 1), (3 / 4, 0.5), (1, 0)):
            update = (cycle + part) * length
            assert schedule.learning_rate(update) == pytest.approx(0.2 * height)
            assert schedule.momentum(update) == pytest.approx(0.9 - 0.1 * height)
    rising = values[: length // 2 + 1]
    assert rising == sorted(rising)
