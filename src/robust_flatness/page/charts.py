"""The page's charts as Vega-Lite specifications; its script fills in data and titles."""

from typing import Any

import altair as alt

EMPTY = alt.Data(values=[])
COLOR = alt.Color("color:N", scale=None)
#: Dashes of lines; "long" and "dotted" for lines that lie on others.
DASHES = {"solid": [1, 0], "dashed": [4, 3], "long": [8, 5], "dotted": [2, 4]}


def charts(families: dict[str, dict[str, str]]) -> dict[str, dict[str, Any]]:
    """Return all charts by name."""
    fitted = {"width": "container", "autosize": alt.AutoSizeParams(type="fit-x", contains="padding")}
    made = {"scatter": _scatter(families), "curves": _curves(), "paths": _paths()}
    made |= {"landscapes": _landscapes()}
    made = {name: chart.properties(**fitted) for name, chart in made.items()}
    return {name: chart.to_dict() for name, chart in {**made, "comparison": _comparison()}.items()}


def _zoomed(axis: type, field: str, title: str) -> alt.X | alt.Y:
    """Return an axis of numbers that need not begin at zero."""
    return axis(f"{field}:Q", title=title, scale=alt.Scale(zero=False))


def _tooltip(**titles: str) -> list[alt.Tooltip]:
    """Return tooltips from field=title; numbers have a format after a bar."""
    tips = []
    for field, words in titles.items():
        title, *form = words.split("|")
        number = {"format": form[0]} if form else {}
        tips.append(alt.Tooltip(f"{field}:{'Q' if form else 'N'}", title=title, **number))
    return tips


def _scatter(families: dict[str, dict[str, str]]) -> alt.LayerChart:
    """Return the scatter plot; the script marks the selected points (`on`) and places names (`lx`, `ly`)."""
    labels, *ranges = ([look[key] for look in families.values()] for key in ("label", "color", "shape"))
    color, shape = (alt.Scale(domain=labels, range=values) for values in ranges)
    brush = alt.selection_interval(name="brush")
    fill = alt.Fill("family:N", scale=color, legend=None)
    points = alt.Chart(EMPTY).mark_point(size=70, strokeWidth=1.5).add_params(brush)
    points = points.encode(
        x=_zoomed(alt.X, "x", "x"),
        y=_zoomed(alt.Y, "y", "y"),
        color=alt.Color("family:N", scale=color, legend=None),
        shape=alt.Shape("family:N", scale=shape, legend=None),
        fill=alt.condition("datum.layer == 'ours'", fill, alt.value("transparent")),
        opacity=alt.condition(brush & alt.datum.on, alt.value(0.95), alt.value(0.15)),
        description=alt.Description("label:N"),
        tooltip=_tooltip(label="variant", layerWords="numbers", x="x|.3f", y="y|.3f", settings="applied"),
    )
    return alt.layer(points, *_names(), data=EMPTY).properties(height=430)


def _names() -> tuple[alt.Chart, alt.Chart]:
    """Return names where the script has placed them, over a rim in the page's colour."""
    base = alt.Chart(EMPTY).transform_filter("isValid(datum.lx)")
    base = base.encode(x=alt.X("lx:Q"), y=alt.Y("ly:Q"), text=alt.Text("short:N"))
    rim = base.mark_text(fontSize=11, strokeWidth=3, strokeOpacity=0.8)
    rim = rim.encode(color=alt.value("transparent"), stroke=alt.Stroke("rim:N", scale=None))
    return rim, base.mark_text(fontSize=11)


def _lines(x: alt.X, y: str) -> alt.Chart:
    """Return lines in colours of the data; the page has their legend."""
    dashes = alt.Scale(domain=[*DASHES], range=[*DASHES.values()])
    dash = alt.StrokeDash("dash:N", scale=dashes, legend=None)
    return alt.Chart(EMPTY).encode(x=x, y=_zoomed(alt.Y, y, "RLoss"), color=COLOR, strokeDash=dash)


def _curves() -> alt.LayerChart:
    share, axis = "share of the training", alt.Axis(tickCount=5)
    epoch = alt.X("epoch:Q", title=share, scale=alt.Scale(domain=[0, 1]), axis=axis)
    base = _lines(epoch, "value").transform_filter("isValid(datum.value)")
    lines = base.mark_line(strokeWidth=2).encode(detail=["variant:N", "split:N"])
    points = base.transform_filter("datum.split == 'test'").mark_point(filled=True, size=25)
    tooltip = _tooltip(label="variant", epoch=f"{share}|.2f", value="on test images|.3f")
    points = points.encode(tooltip=tooltip)
    return alt.layer(lines, points, data=EMPTY).properties(height=300)


def _paths() -> alt.LayerChart:
    """Return paths through training, with names at the latest points."""
    numbers = {"epoch": "share of the training|.2f", "rloss": "test RLoss|.3f", "flatness": "flatness|.3f"}
    x = alt.X("flatness:Q", title="average-case flatness in RLoss (lower is flatter)")
    y = _zoomed(alt.Y, "rloss", "test RLoss (lower is more robust)")
    base = alt.Chart(EMPTY).encode(x=x, y=y, color=COLOR, tooltip=_tooltip(label="variant", **numbers))
    line = base.mark_line(strokeWidth=1.2, opacity=0.45).encode(order="epoch:Q", detail="variant:N")
    dots = base.mark_point(filled=True, size=18, opacity=0.45)
    ends = base.transform_filter("datum.latest").mark_point(filled=True, size=110, opacity=1)
    return alt.layer(line, dots, ends, *_names(), data=EMPTY).properties(height=420)


def _landscapes() -> alt.Chart:
    along = alt.X("s:Q", title="step s along the direction", axis=alt.Axis(tickCount=6))
    lines = _lines(along, "rloss").mark_line(strokeWidth=1.8)
    tooltip = _tooltip(label="variant", s="s|.2f", rloss="RLoss|.3f")
    return lines.encode(detail="variant:N", tooltip=tooltip).properties(height=280)


def _comparison() -> alt.LayerChart:
    """Return a row per measure: on the robust loss above, on the clean loss below it and hollow."""
    axis = alt.Axis(labelExpr="split(datum.label, '\\n')", labelLimit=0, offset=2, grid=True)
    offset = alt.Scale(domain=[False, True], paddingOuter=0.4)
    base = alt.Chart(EMPTY).encode(
        y=alt.Y("name:N", sort=None, title="", axis=axis),
        yOffset=alt.YOffset("clean:N", scale=offset),
        color=COLOR,
        tooltip=_tooltip(label="measure", value="Spearman|.2f", low="95 % from|.2f", high="to|.2f"),
    )
    x = {"scale": alt.Scale(domain=[-1, 1]), "axis": alt.Axis(tickCount=5, orient="top")}
    low = alt.X("low:Q", title="Spearman's ρ with test RLoss", **x)
    intervals = base.mark_rule(strokeWidth=1.5, opacity=0.6).encode(x=low, x2="high:Q")
    values = base.mark_point(size=45, strokeWidth=1.5, opacity=1)
    values = values.encode(x=alt.X("value:Q", **x), fill=alt.Fill("fill:N", scale=None))
    zero = alt.Chart(alt.Data(values=[{}])).mark_rule(strokeDash=[2, 2], color="#999").encode(x=alt.datum(0))
    return alt.layer(zero, intervals, values, data=EMPTY).properties(width="container", height=alt.Step(9))
