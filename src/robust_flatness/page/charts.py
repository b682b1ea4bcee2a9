"""The page's pictures as Vega-Lite specifications; their data and titles are filled in by its script."""

from typing import Any

import altair as alt

#: Filled in by the script, so that a chart is made once and shown with any data.
EMPTY = alt.Data(values=[])


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
    return {name: chart.properties(autosize=fitted).to_dict() for name, chart in made.items()}


def _family_scales(families: dict[str, dict[str, str]]) -> tuple[alt.Scale, alt.Scale]:
    labels = [look["label"] for look in families.values()]
    return (
        alt.Scale(domain=labels, range=[look["color"] for look in families.values()]),
        alt.Scale(domain=labels, range=[look["shape"] for look in families.values()]),
    )


def _scatter(families: dict[str, dict[str, str]]) -> alt.LayerChart:
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
            opacity=alt.condition(brush, alt.value(0.95), alt.value(0.2)),
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
    names = (
        alt.Chart(EMPTY)
        .transform_filter("datum.named")
        .mark_text(align="left", dx=7, dy=-5, fontSize=11)
        .encode(x="x:Q", y="y:Q", text="label:N", opacity=alt.value(0.9))
    )
    return alt.layer(points, names, data=EMPTY).properties(width="container", height=430)


def _lines(y: str, title: str) -> alt.Chart:
    return alt.Chart(EMPTY).encode(
        x=alt.X(
            "epoch:Q",
            title="share of the training",
            scale=alt.Scale(domain=[0, 1]),
            axis=alt.Axis(tickCount=10),
        ),
        y=alt.Y(f"{y}:Q", title=title, scale=alt.Scale(zero=False)),
        color=alt.Color("label:N", title="", legend=alt.Legend(orient="top", columns=3)),
        tooltip=["label:N", alt.Tooltip("epoch:Q", format=".2f"), alt.Tooltip(f"{y}:Q", format=".3f")],
    )


def _curves() -> alt.LayerChart:
    base = _lines("value", "RLoss").transform_filter("isValid(datum.value)")
    dash = alt.StrokeDash(
        "split:N", title="", scale=alt.Scale(domain=["test", "train"], range=[[1, 0], [4, 3]])
    )
    lines = base.mark_line(strokeWidth=2).encode(strokeDash=dash, detail=["variant:N", "split:N"])
    points = base.transform_filter("datum.split == 'test'").mark_point(filled=True, size=25)
    return alt.layer(lines, points, data=EMPTY).properties(width="container", height=300)


def _paths() -> alt.LayerChart:
    """Colours are those of the families (data), names stand at the latest points."""
    base = alt.Chart(EMPTY).encode(
        x=alt.X("flatness:Q", title="average-case flatness in RLoss (lower is flatter)"),
        y=alt.Y("rloss:Q", title="test RLoss", scale=alt.Scale(zero=False)),
        color=alt.Color("color:N", scale=None),
        tooltip=[
            alt.Tooltip("label:N", title="variant"),
            alt.Tooltip("epoch:Q", title="share of the training", format=".2f"),
            alt.Tooltip("rloss:Q", title="test RLoss", format=".3f"),
            alt.Tooltip("flatness:Q", title="flatness", format=".3f"),
        ],
    )
    line = base.mark_line(strokeWidth=1.2, opacity=0.5).encode(order="epoch:Q", detail="variant:N")
    dots = base.mark_point(filled=True, size=22, opacity=0.5)
    ends = base.transform_filter("datum.latest").mark_point(filled=True, size=120, opacity=1)
    names = base.transform_filter("datum.latest").mark_text(align="left", dx=8, fontSize=11)
    names = names.encode(text="label:N")
    return alt.layer(line, dots, ends, names, data=EMPTY).properties(width="container", height=420)


def _landscapes() -> alt.Chart:
    return (
        alt.Chart(EMPTY)
        .mark_line(strokeWidth=1.8)
        .encode(
            x=alt.X("s:Q", title="s, share of the direction's scale", axis=alt.Axis(tickCount=10)),
            y=alt.Y("rloss:Q", title="RLoss", scale=alt.Scale(zero=False)),
            color=alt.Color("label:N", title="", legend=alt.Legend(orient="top", columns=3)),
            detail="variant:N",
            tooltip=["label:N", alt.Tooltip("s:Q", format=".2f"), alt.Tooltip("rloss:Q", format=".3f")],
        )
        .properties(width="container", height=280)
    )


def _comparison() -> alt.LayerChart:
    """Flatness, sharpness and controls in colours of their own; the domain follows the data."""
    kinds = alt.Color(
        "group:N",
        title="",
        scale=alt.Scale(domain=["flatness", "sharpness", "control"], range=["#D55E00", "#4ba3dd", "#8a94a0"]),
        legend=alt.Legend(orient="top"),
    )
    base = alt.Chart(EMPTY).encode(
        y=alt.Y("name:N", sort=None, title="", axis=alt.Axis(labelLimit=260, offset=2)),
        color=kinds,
        tooltip=[
            alt.Tooltip("name:N", title="measure"),
            alt.Tooltip("value:Q", title="Spearman", format=".2f"),
            alt.Tooltip("low:Q", title="95 % from", format=".2f"),
            alt.Tooltip("high:Q", title="to", format=".2f"),
        ],
    )
    domain = alt.Scale(domain=[-1, 1])
    intervals = base.mark_rule(strokeWidth=2, opacity=0.6).encode(
        x=alt.X("low:Q", scale=domain, title="Spearman's correlation with test RLoss"), x2="high:Q"
    )
    values = base.mark_point(filled=True, size=60, opacity=1).encode(x=alt.X("value:Q", scale=domain))
    zero = alt.Chart(alt.Data(values=[{}])).mark_rule(strokeDash=[2, 2], color="#999").encode(x=alt.datum(0))
    return alt.layer(zero, intervals, values, data=EMPTY).properties(width="container", height=alt.Step(17))
