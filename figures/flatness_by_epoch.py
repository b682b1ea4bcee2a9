# %% [markdown]
# # RLoss against flatness, epoch by epoch

# %%
from robust_flatness.plotting import curves, inputs, looks, style
from robust_flatness.tables import frames

notebook = inputs("flatness_by_epoch", globals().get("snakemake"))
X, Y = "avg_flatness_rloss", "test_rloss_pgd"
families = notebook.ours.variants.set_index("variant")["family"]
order = [*frames.catalogue(), *families.index]


# %%
def draw():
    series = notebook.ours.series.dropna(subset=[X, Y]).sort_values(curves.EPOCH)
    series = series[series[curves.EPOCH] > curves.EARLY]
    slugs = sorted(series["variant"].unique(), key=order.index)
    names = {"x": "Average-case flatness\n(lower is flatter)", "y": "Test RLoss\n(lower is more robust)"}
    figure, panels = style.panels(len(slugs), 6, height=1.25, sharex=True, sharey=True, **names)
    farthest, baseline = series.groupby("variant")[X].max(), series[series["variant"] == "at"]
    edge = 1.1 * farthest[style.near(farthest, fence=1.5)].max()
    panels[0].set_xlim(series[X].min() - 0.1, edge)
    for axes, slug in zip(panels, slugs, strict=True):
        look, rows = looks.family(families[slug]), series[series["variant"] == slug]
        axes.plot(baseline[X], baseline[Y], color=style.LIGHT, linewidth=2.5, label="AT (baseline)")
        axes.plot(rows[X], rows[Y], "o-", color=look.color, linewidth=0.8, markersize=1.8)
        last = rows.iloc[-1]
        look = {"color": look.color, "marker": look.marker, "markersize": 9 if slug == "at" else 6}
        axes.plot(min(last[X], edge), last[Y], clip_on=False, **look)
        axes.set_title(looks.variant(slug))
    text = "Each path runs from the first fifth of the training to its end, the large marker."
    far = farthest[farthest > edge].items()
    far = ", ".join(f"{looks.variant(slug)} up to {flatness:.2g}" for slug, flatness in far)
    style.legend(figure, style.entries(panels), text, f"Beyond the axis: {far}." * bool(far))
    return figure


# %%
notebook.show(draw, notebook.missing(X, Y, table="series"))
