import pytest

from robust_flatness.training.optimizers import Schedule


def rates(make_job, updates, **settings):
    training = make_job(**settings).training
    return [Schedule(training, updates).learning_rate(i) for i in range(training.epochs * updates)]


@pytest.mark.parametrize(
    ("epochs", "milestones", "drops"),
    [(150, (0.4, 0.6, 0.8), (60, 90, 120)), (150, (140 / 150, 145 / 150), (140, 145)), (10, (0.4,), (4,))],
)
def test_multi_step_drops_by_ten_at_the_first_update_of_a_milestones_epoch(
    make_job, epochs, milestones, drops
):
    values = rates(make_job, 7, epochs=epochs, learning_rate=1, milestones=milestones)
    expected = [0.1 ** sum(update // 7 >= drop for drop in drops) for update in range(7 * epochs)]
    assert values == pytest.approx(expected)


def test_constant_stays(make_job):
    assert {*rates(make_job, 3, schedule="constant", learning_rate=0.01)} == {0.01}


@pytest.mark.parametrize("cycles", [1, 2, 4])
def test_cycles_run_from_zero_to_the_peak_and_back(make_job, cycles):
    values = rates(make_job, 5, schedule="cyclic", cycles=cycles, epochs=4 * cycles, learning_rate=0.2)
    cycle = [*(0.02 * step for step in range(10)), *(0.02 * step for step in range(10, 0, -1))]
    assert values == pytest.approx(cycle * cycles)
