"""Labels of points that overlap neither each other nor the points."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Text

from robust_flatness.plotting.style import freeze

#: Distances of a label from its point in 1/72 inch, and directions in degrees.
DISTANCES = (5, 10, 16, 23, 31, 40, 52, 66)
DIRECTIONS = np.arange(0, 360, 22.5)
#: A label that would cover or cross about four points is left out.
WORST_COST = 11
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
    lines: list[np.ndarray] = []
    targets = [(axes.transData.transform((x, y)), text) for x, y, text in labels]
    # The most crowded point chooses first.
    targets.sort(key=lambda target: (-_crowd(points, target[0], 30 * pixel), target[1]))
    inverse = axes.transAxes.inverted()
    written = []
    for target, words in targets:
        text = axes.text(
            *(0.5, 0.5, words),
            ha="center",
            va="center",
            fontsize=fontsize,
            color=color,
            transform=axes.transAxes,
            zorder=6,
        )
        extent = text.get_window_extent(renderer)
        size = np.array([extent.width, extent.height])
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
        costs = 0.05 * distances + _cost(boxes, paths, others, lines, frame, reach=2.5 * pixel)
        # A short level line before a number would read as a minus.
        level = (np.abs(toward[:, 1]) < 0.3) & words[0].isdigit()
        costs += 1.0 * (level & (distances > DISTANCES[0]))
        costs += 1.5 * doubtful + 4.0 * (nearest < 3 * pixel)
        costs += 1e6 * sum((_overlap(boxes, box) for box in taken), np.zeros(len(boxes)))
        costs += 8.0 * sum((_crosses(paths, box) for box in taken), np.zeros(len(boxes)))
        best = int(np.argmin(costs))
        if costs[best] > WORST_COST:
            text.remove()
            continue
        text.set_position(inverse.transform(middles[best]))
        taken.append(boxes[best])
        written.append(text)
        near_another = nearest[best] < own[best] + 8 * pixel and not level[best]
        if distances[best] > DISTANCES[0] or near_another:
            lines.append(paths[best])
            line = inverse.transform(paths[best][[0, -1]])
            axes.plot(*line.T, color=color, linewidth=0.4, transform=axes.transAxes, zorder=5)
    return written


def _gaps(boxes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Distance of each box from the nearest of some points: [places]; infinite without points."""
    nearest = np.clip(points, boxes[:, None, :2], boxes[:, None, 2:])
    return np.linalg.norm(nearest - points, axis=2).min(axis=1, initial=np.inf)


def _crowd(points: np.ndarray, point: np.ndarray, radius: float) -> int:
    return int(np.sum(np.linalg.norm(points - point, axis=1) < radius))


def _cost(
    boxes: np.ndarray,
    paths: np.ndarray,
    points: np.ndarray,
    lines: list[np.ndarray],
    frame: np.ndarray,
    reach: float,
) -> np.ndarray:
    """What each place covers and crosses: [places]."""
    near = (points > boxes[:, None, :2] - reach) & (points < boxes[:, None, 2:] + reach)
    covered = near.all(axis=2).sum(axis=1)
    gaps = np.linalg.norm(paths[:, :, None] - points, axis=3).min(axis=1)
    crossed = (gaps < reach).sum(axis=1)
    outside = (boxes[:, :2] < frame[:2]).any(axis=1) | (boxes[:, 2:] > frame[2:]).any(axis=1)
    cost = 3.0 * covered + 1.5 * crossed + 30.0 * outside
    for line in lines:
        crosses = np.linalg.norm(paths[:, :, None] - line, axis=3).min(axis=(1, 2)) < reach
        cost += 1.5 * crosses
        inside = (line > boxes[:, None, :2]) & (line < boxes[:, None, 2:])
        cost += 8.0 * inside.all(axis=2).any(axis=1)
    return cost


def _overlap(boxes: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether each box touches another: [places] of 0 and 1."""
    overlap = np.minimum(boxes[:, 2:], other[2:]) - np.maximum(boxes[:, :2], other[:2])
    return (overlap > 0).all(axis=1).astype(float)


def _crosses(paths: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Whether each path goes through a box: [places] of 0 and 1."""
    inside = (paths > box[:2]) & (paths < box[2:])
    return inside.all(axis=2).any(axis=1).astype(float)
