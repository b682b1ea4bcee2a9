"""The headline plot with a user's network in it."""

import numpy as np
import pytest

from robust_flatness.measuring.place import Others
from robust_flatness.plotting.own_model import YELLOW, draw, headline


def result(flatness=0.7, rloss=1.5, epsilon=8 / 255):
    values = {"avg_flatness_rloss": flatness, "avg_flatness_rloss_se": 0.1, "avg_flatness_xi": 0.5}
    values |= {"test_rloss_pgd": rloss, "test_rloss_pgd_se": 0.2}
    measures = {"robustness": {"spec": {"attack": {"epsilon": epsilon}}}}
    return {"values": values, "data": "folder/mine.npz", "measures": measures}


@pytest.fixture
def experiment(tmp_path):
    rows = [f"v{i},last,weight-decay,{0.1 * i},{1 + 0.1 * i},0.05,0.5\n" for i in range(6)]
    columns = "variant,checkpoint,family,avg_flatness_rloss,test_rloss_pgd,setting_epsilon,avg_flatness_xi\n"
    (tmp_path / "models.csv").write_text(columns + "".join(rows))
    return Others.of(tmp_path / "models.csv")


def network(axes):
    """The network's point, and the ends of its bars."""
    (line,) = [line for line in axes.lines if line.get_color() == YELLOW and line.get_marker() == "X"]
    (container,) = [found for found in axes.containers if found.lines[0] is line]
    return line.get_xydata()[0], [bars.get_segments()[0] for bars in container.lines[2]]


@pytest.mark.parametrize(("flatness", "rloss"), [(0.7, 1.5), (-0.3, 2.0), (0.4, 40.0), (25.0, 0.5)])
def test_the_network_is_inside_the_axes_with_bars_of_one_standard_error(experiment, flatness, rloss):
    figure = headline(result(flatness, rloss), [Others.printed(), experiment], "mine")
    assert len(figure.axes) == 2
    for axes in figure.axes:
        point, (across, up) = network(axes)
        assert point == pytest.approx([flatness, rloss])
        assert np.ptp(across[:, 0]) == pytest.approx(2 * 0.1)
        assert np.ptp(up[:, 1]) == pytest.approx(2 * 0.2)
        for value, (low, high) in zip(point, (axes.get_xlim(), axes.get_ylim()), strict=True):
            assert low < value < high
        assert "mine" in [text.get_text() for text in axes.texts]


def test_titles_say_when_radii_differ(experiment):
    alike = headline(result(), [Others.printed()], "mine").axes[0]
    assert "measured otherwise" not in alike.get_title(loc="left")
    other = headline(result(epsilon=0.1), [Others.printed(), experiment], "mine")
    printed, own = [axes.get_title(loc="left") for axes in other.axes]
    assert "ε = 8/255 there, 0.1 here" in printed
    assert "ε = 0.05 there, 0.1 here" in own


def test_a_matplotlibrc_changes_nothing(tmp_path):
    import matplotlib

    draw(tmp_path / "plain.png", result(), [Others.printed()], "mine")
    matplotlib.rcParams.update({"axes.facecolor": "black", "figure.facecolor": "yellow", "text.usetex": True})
    draw(tmp_path / "dark.png", result(), [Others.printed()], "mine")
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "dark.png").read_bytes()


@pytest.mark.parametrize("suffix", ["pdf", "svg"])
def test_a_label_with_dollar_signs_is_drawn_as_it_is(tmp_path, suffix):
    path = tmp_path / "new" / f"mine.{suffix}"
    draw(path, result(), [Others.printed()], "a$_{b$ $x^$")
    assert path.stat().st_size > 5000
