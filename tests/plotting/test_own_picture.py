"""The headline plot with a user's network in it."""

import matplotlib
import numpy as np
import pytest

from robust_flatness.errors import ConfigError
from robust_flatness.plotting.own_model import YELLOW, draw, headline
from robust_flatness.run.place import ModelGroup


def result(flatness=0.7, rloss=1.5):
    values = {"avg_flatness_rloss": flatness, "avg_flatness_rloss_se": 0.1, "avg_flatness_xi": 0.5}
    values |= {"test_rloss_pgd": rloss, "test_rloss_pgd_se": 0.2}
    settings = {"robustness": {"attack": {"epsilon": 8 / 255}}}
    return {"values": values, "data": "folder/mine.npz", "settings": settings}


@pytest.fixture
def experiment(tmp_path):
    rows = [f"v{i},last,weight-decay,{0.1 * i},{1 + 0.1 * i},0.05,0.5\n" for i in range(6)]
    columns = "variant,checkpoint,family,avg_flatness_rloss,test_rloss_pgd,setting_epsilon,avg_flatness_xi\n"
    (tmp_path / "models.csv").write_text(columns + "".join(rows))
    return ModelGroup.read(tmp_path / "models.csv")


@pytest.mark.parametrize(("flatness", "rloss"), [(0.7, 1.5), (-0.3, 2.0), (0.4, 40.0), (25.0, 0.5)])
def test_the_network_and_its_bars_lie_at_its_values_within_the_axes(experiment, flatness, rloss):
    figure = headline(result(flatness, rloss), [ModelGroup.printed(), experiment], "mine")
    assert len(figure.axes) == 2
    for axes in figure.axes:
        drawn = [container for container in axes.containers if container.lines[0] is not None]
        (container,) = [container for container in drawn if container.lines[0].get_color() == YELLOW]
        across, up = [bars.get_segments()[0] for bars in container.lines[2]]
        assert container.lines[0].get_xydata()[0] == pytest.approx([flatness, rloss])
        assert (np.ptp(across[:, 0]), np.ptp(up[:, 1])) == pytest.approx((2 * 0.1, 2 * 0.2))
        assert axes.get_xlim()[0] < flatness < axes.get_xlim()[1]
        assert axes.get_ylim()[0] < rloss < axes.get_ylim()[1]
        assert "mine" in [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_the_same_file_is_written_whatever_the_users_style(tmp_path, suffix):
    first, second = (tmp_path / "new" / f"{number}.{suffix}" for number in "12")
    draw(first, result(), [ModelGroup.printed()], "mine")
    with matplotlib.rc_context({"axes.facecolor": "black", "text.usetex": True}):
        draw(second, result(), [ModelGroup.printed()], "mine")
    assert first.read_bytes() == second.read_bytes()


def test_a_network_of_infinite_loss_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="not finite"):
        draw(tmp_path / "mine.png", result(flatness=float("nan")), [ModelGroup.printed()], "mine")
