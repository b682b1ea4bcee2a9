"""The page's pictures as Vega-Lite specifications; their data and titles are filled in by its script."""

from typing import Any

import altair as alt

#: Filled in by the script, so that a chart is made once and shown with any data.
EMPTY = alt.Data(values=[])
#: Lines by what they stand for: drawn through, dashed, and two for lines that lie on others.
DASHES = {"solid": [1, 0], "dashed": [4, 3], "long": [8, 5], "dotted": [2, 4]}


def charts(families: dict[str, dict[str, str]]) -> dict[str, dict[str, Any]]:
    """All charts by name."""
    made = {
        "scatter": _scatter(families),
        "curves": _curves(),
        "paths": _paths(),
        "landscapes": _landscapes(),
        "comparison": _comparison(),
    }
    fitted = alt.AutoSizeParams(type="fit-x", contains="padding")
    return {
        name: (chart if name == "comparison" else chart.properties(autosize=fitted)).to_dict()
        for name, chart in made.items()
    }


def _family_scales(families: dict[str, dict[str, str]]) -> tuple[alt.Scale, alt.Scale]:
    labels = [look["label"] for look in families.values()]
    return (
        alt.Scale(domain=labels, range=[look["color"] for look in families.values()]),
        alt.Scale(domain=labels, range=[look["shape"] for look in families.values()]),
    )


def _scatter(families: dict[str, dict[str, str]]) -> alt.LayerChart:
    """The script says which points are selected (`on`) and where names stand (`lx`, `ly`)."""
    color, shape = _family_scales(families)
    brush = alt.selection_interval(name="brush")
    points = (
        alt.Chart(EMPTY)
        .mark_point(size=70, strokeWidth=1.5)
        .encode(
            x=alt.X("x:Q", scale=alt.Scale(zero=False), title="x"),
            y=alt.Y("y:Q", scale=alt.Scale(zero=False), title="y"),
            color=alt.Color("family:N", scale=color, legend=None),
            shape=alt.Shape("family:N", scale=shape, legend=None),
            fill=alt.condition("datum.layer == 'ours'", alt.Fill("family:N", scale=color, legend=None),
                               alt.value("transparent")),
            opacity=alt.condition(brush & alt.datum.on, alt.value(0.95), alt.value(0.15)),
            description=alt.Description("label:N"),
            tooltip=[
                alt.Tooltip("label:N", title="variant"),
                alt.Tooltip("layerWords:N", title="numbers"),
                alt.Tooltip("x:Q", title="x", format=".3f"),
                alt.Tooltip("y:Q", title="y", format=".3f"),
                alt.Tooltip("settings:N", title="applied"),
            ],
        )
        .add_params(brush)
    )  # fmt: skip
    return alt.layer(points, *_names(), data=EMPTY).properties(width="container", height=430)


def _names() -> tuple[alt.Chart, alt.Chart]:
    """Names where the script has found room for them, over a rim in the page's colour."""
    base = alt.Chart(EMPTY).transform_filter("isValid(datum.lx)")
    at = {"x": alt.X("lx:Q"), "y": alt.Y("ly:Q"), "text": alt.Text("short:N")}
    rim = base.mark_text(fontSize=11, strokeWidth=3, strokeOpacity=0.8).encode(
        **at, color=alt.value("transparent"), stroke=alt.Stroke("rim:N", scale=None)
    )
    return rim, base.mark_text(fontSize=11).encode(**at)


def _lines(x: alt.X, y: str) -> alt.Chart:
    """Lines in colours of the data; the page has their legend."""
    dashes = alt.Scale(domain=[*DASHES], range=[*DASHES.values()])
    return alt.Chart(EMPTY).encode(
        x=x,
        y=alt.Y(f"{y}:Q", title="RLoss", scale=alt.Scale(zero=False)),
        color=alt.Color("color:N", scale=None),
        strokeDash=alt.StrokeDash("dash:N", scale=dashes, legend=None),
    )


def _curves() -> alt.LayerChart:
    epoch = alt.X(
        "epoch:Q", title="share of the training", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=5)
    )
    base = _lines(epoch, "value").transform_filter("isValid(datum.value)")
    lines = base.mark_line(strokeWidth=2).encode(detail=["variant:N", "split:N"])
    points = base.transform_filter("datum.split == 'test'").mark_point(filled=True, size=25)
    points = points.encode(
        tooltip=[
            alt.Tooltip("label:N", title="variant"),
            alt.Tooltip("epoch:Q", title="share of the training", format=".2f"),
            alt.Tooltip("value:Q", title="on test images", format=".3f"),
        ]
    )
    return alt.layer(lines, points, data=EMPTY).properties(width="container", height=300)


def _paths() -> alt.LayerChart:
    """Names stand at the latest points."""
    base = alt.Chart(EMPTY).encode(
        x=alt.X("flatness:Q", title="average-case flatness in RLoss (lower is flatter)"),
        y=alt.Y("rloss:Q", title="test RLoss (lower is more robust)", scale=alt.Scale(zero=False)),
        color=alt.Color("color:N", scale=None),
        tooltip=[
            alt.Tooltip("label:N", title="variant"),
            alt.Tooltip("epoch:Q", title="share of the training", format=".2f"),
            alt.Tooltip("rloss:Q", title="test RLoss", format=".3f"),
            alt.Tooltip("flatness:Q", title="flatness", format=".3f"),
        ],
    )
    line = base.mark_line(strokeWidth=1.2, opacity=0.45).encode(order="epoch:Q", detail="variant:N")
    dots = base.mark_point(filled=True, size=18, opacity=0.45)
    ends = base.transform_filter("datum.latest").mark_point(filled=True, size=110, opacity=1)
    return alt.layer(line, dots, ends, *_names(), data=EMPTY).properties(width="container", height=420)


def _landscapes() -> alt.Chart:
    along = alt.X("s:Q", title="step s along the direction", axis=alt.Axis(tickCount=6))
    lines = _lines(along, "rloss").mark_line(strokeWidth=1.8)
    tooltip = ["label:N", alt.Tooltip("s:Q", format=".2f"), alt.Tooltip("rloss:Q", format=".3f")]
    return lines.encode(detail="variant:N", tooltip=tooltip).properties(width="container", height=280)


def _comparison() -> alt.LayerChart:
    """A row per measure: on the robust loss above, on the clean loss below it and hollow."""
    base = alt.Chart(EMPTY).encode(
        y=alt.Y(
            "name:N",
            sort=None,
            title="",
            axis=alt.Axis(labelExpr="split(datum.label, '\\n')", labelLimit=0, offset=2, grid=True),
        ),
        yOffset=alt.YOffset("clean:N", scale=alt.Scale(domain=[False, True], paddingOuter=0.4)),
        color=alt.Color("color:N", scale=None),
        tooltip=[
            alt.Tooltip("label:N", title="measure"),
            alt.Tooltip("value:Q", title="Spearman", format=".2f"),
            alt.Tooltip("low:Q", title="95 % from", format=".2f"),
            alt.Tooltip("high:Q", title="to", format=".2f"),
        ],
    )
    x = {"scale": alt.Scale(domain=[-1, 1]), "axis": alt.Axis(tickCount=5, orient="top")}
    intervals = base.mark_rule(strokeWidth=1.5, opacity=0.6).encode(
        x=alt.X("low:Q", title="Spearman's ρ with test RLoss", **x), x2="high:Q"
    )
    values = base.mark_point(size=45, strokeWidth=1.5, opacity=1).encode(
        x=alt.X("value:Q", **x), fill=alt.Fill("fill:N", scale=None)
    )
    zero = alt.Chart(alt.Data(values=[{}])).mark_rule(strokeDash=[2, 2], color="#999").encode(x=alt.datum(0))
    return alt.layer(zero, intervals, values, data=EMPTY).properties(width="container", height=alt.Step(9))
