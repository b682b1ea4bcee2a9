"""Labels of points that overlap neither each other nor the points."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Text

from robust_flatness.plotting.style import freeze

#: Distances of a label from its point in 1/72 inch, and directions in degrees.
DISTANCES = (5, 10, 16, 23, 31, 40, 52, 66)
DIRECTIONS = np.arange(0, 360, 22.5)
#: A label that would cover or cross about four points is left out.
WORST_COST = 11
#: How often labels are arranged anew where some found no place.
ATTEMPTS = 6
#: Points along a label's line at which it is checked.
STEPS = np.linspace(0, 1, 15)[:, None]


def place_labels(
    axes: Axes,
    labels: Sequence[tuple[float, float, str]],
    obstacles: Sequence[tuple[float, float]] = (),
    texts: Sequence[Text] = (),
    fontsize: float = 6,
    reach: float = 66,
    color: str = "#202020",
) -> list[Text]:
    """Write each label (x, y, text) beside its point, where it covers least.

    Places all around the point are tried; covered points count against a place, as do its distance,
    other points near it and what its line to the point crosses. Where the label could be taken for
    another point's, a line leads to its own. A label that finds no fair place is left out. Call it last:
    the layout is fixed by drawing.

    Parameters
    ----------
    obstacles
        Further points, in data coordinates, not to be covered.
    texts
        Other texts, never covered.
    reach
        Greatest distance of a label from its point, in 1/72 inch.
    """
    figure = axes.figure
    freeze(figure)
    renderer = figure.canvas.get_renderer()
    pixel = figure.dpi / 72
    frame = axes.get_window_extent(renderer).extents
    everything = [*obstacles, *((x, y) for x, y, _ in labels)]
    points = axes.transData.transform(np.array(everything, float).reshape(-1, 2))
    taken = [text.get_window_extent(renderer).extents for text in texts if text.get_text()]
    look = {"ha": "center", "va": "center", "fontsize": fontsize, "color": color}
    found = []
    for x, y, words in labels:
        text = axes.text(0.5, 0.5, words, **look, transform=axes.transAxes, zorder=6)
        extent = text.get_window_extent(renderer)
        size = np.array([extent.width, extent.height])
        target = axes.transData.transform((x, y))
        found.append(_places(text, size, target, points, frame, pixel, reach))
    # The most crowded point chooses first.
    found.sort(key=lambda places: (-places.crowd, places.text.get_text()))
    inverse = axes.transAxes.inverted()
    written = []
    for places, best in _arranged(found, taken, 2.5 * pixel):
        places.text.set_position(inverse.transform(places.middles[best]))
        written.append(places.text)
        if places.lined[best]:
            line = inverse.transform(places.paths[best][[0, -1]])
            axes.plot(*line.T, color=color, linewidth=0.4, transform=axes.transAxes, zorder=5)
    for places in found:
        if places.text not in written:
            places.text.remove()
    return written


@dataclass(frozen=True, eq=False)
class _Places:
    """Where a label may stand: middles, boxes and lines of all places, and what each costs by itself."""

    text: Text
    crowd: int
    middles: np.ndarray
    boxes: np.ndarray
    paths: np.ndarray
    costs: np.ndarray
    lined: np.ndarray


def _places(
    text: Text,
    size: np.ndarray,
    target: np.ndarray,
    points: np.ndarray,
    frame: np.ndarray,
    pixel: float,
    reach: float,
) -> _Places:
    near = [distance for distance in DISTANCES if distance <= reach]
    angles = np.deg2rad(np.tile(DIRECTIONS, len(near)))
    distances = np.repeat(near, len(DIRECTIONS))
    toward = np.column_stack([np.cos(angles), np.sin(angles)])
    middles = target + toward * distances[:, None] * pixel + np.sign(toward.round(3)) * size / 2
    boxes = np.hstack([middles - size / 2 - pixel / 2, middles + size / 2 + pixel / 2])
    starts = target + toward * 3 * pixel
    ends = np.clip(target, boxes[:, :2], boxes[:, 2:])
    paths = starts[:, None] + STEPS * (ends - starts)[:, None]
    others = points[np.abs(points - target).max(axis=1) > 0.5]
    own, nearest = _gaps(boxes, target[None]), _gaps(boxes, others)
    # Beside another point a label would be taken for that one's, line or not.
    doubtful = nearest < np.maximum(1.5 * own, own + 2 * pixel)
    # A short level line before a number would read as a minus.
    level = (np.abs(toward[:, 1]) < 0.3) & text.get_text()[0].isdigit()
    costs = 0.05 * distances + _cost(boxes, paths, others, frame, reach=2.5 * pixel)
    costs += 1.0 * (level & (distances > DISTANCES[0])) + 1.5 * doubtful + 4.0 * (nearest < 3 * pixel)
    lined = (distances > DISTANCES[0]) | ((nearest < own + 8 * pixel) & ~level)
    crowd = int(np.sum(np.linalg.norm(points - target, axis=1) < 30 * pixel))
    return _Places(text, crowd, middles, boxes, paths, costs, lined)


def _arranged(
    labels: Sequence[_Places], taken: Sequence[np.ndarray], reach: float
) -> list[tuple[_Places, int]]:
    """A place for each label, one after the other; where some find none, those choose first in another
    attempt, and the attempt that leaves out fewest counts."""
    best: list[tuple[_Places, int]] = []
    order = list(labels)
    for _ in range(ATTEMPTS):
        boxes, lines, placed = [*taken], [], []
        for label in order:
            costs = label.costs + _cost_of_lines(label.boxes, label.paths, lines, reach)
            costs = costs + 1e6 * sum((_overlap(label.boxes, box) for box in boxes), np.zeros(len(costs)))
            costs = costs + 8.0 * sum((_crosses(label.paths, box) for box in boxes), np.zeros(len(costs)))
            place = int(np.argmin(costs))
            if costs[place] > WORST_COST:
                continue
            placed.append((label, place))
            boxes.append(label.boxes[place])
            lines += [label.paths[place]] if label.lined[place] else []
        if len(placed) > len(best):
            best = placed
        missed = [label for label in order if label not in [one for one, _ in placed]]
        if not missed:
            break
        order = [*missed, *(label for label in order if label not in missed)]
    return best


def _gaps(boxes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Distance of each box from the nearest of some points: [places]; infinite without points."""
    nearest = np.clip(points, boxes[:, None, :2], boxes[:, None, 2:])
    return np.linalg.norm(nearest - points, axis=2).min(axis=1, initial=np.inf)


def _cost(
    boxes: np.ndarray, paths: np.ndarray, points: np.ndarray, frame: np.ndarray, reach: float
) -> np.ndarray:
    """What each place covers and crosses, points and the frame: [places]."""
    near = (points > boxes[:, None, :2] - reach) & (points < boxes[:, None, 2:] + reach)
    covered = near.all(axis=2).sum(axis=1)
    gaps = np.linalg.norm(paths[:, :, None] - points, axis=3).min(axis=1)
    crossed = (gaps < reach).sum(axis=1)
    outside = (boxes[:, :2] < frame[:2]).any(axis=1) | (boxes[:, 2:] > frame[2:]).any(axis=1)
    return 3.0 * covered + 1.5 * crossed + 30.0 * outside


def _cost_of_lines(
    boxes: np.ndarray, paths: np.ndarray, lines: Sequence[np.ndarray], reach: float
) -> np.ndarray:
    """What each place covers and crosses of other labels' lines: [places]."""
    cost = np.zeros(len(boxes))
    for line in lines:
        crosses = np.linalg.norm(paths[:, :, None] - line, axis=3).min(axis=(1, 2)) < reach
        inside = (line > boxes[:, None, :2]) & (line < boxes[:, None, 2:])
        cost += 1.5 * crosses + 8.0 * inside.all(axis=2).any(axis=1)
    return cost


def _overlap(boxes: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether each box touches another: [places] of 0 and 1."""
    overlap = np.minimum(boxes[:, 2:], other[2:]) - np.maximum(boxes[:, :2], other[:2])
    return (overlap > 0).all(axis=1).astype(float)


def _crosses(paths: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Whether each path goes through a box: [places] of 0 and 1."""
    inside = (paths > box[:2]) & (paths < box[2:])
    return inside.all(axis=2).any(axis=1).astype(float)
