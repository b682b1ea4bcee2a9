# %% [markdown]
# # Hyper-parameters, method by method

# %%
from robust_flatness.plotting import curves, inputs, looks, scatter, style

notebook = inputs("hyperparameter_trends", globals().get("snakemake"))
X, Y = "avg_flatness_rloss", "test_rloss_pgd"
ours = notebook.ours.variants[notebook.ours.variants["learnt"]]
rows = ours.dropna(subset=[X, Y]) if {X, Y} <= {*ours} else ours.iloc[:0]
methods = curves.by_hyperparameter(rows, least=2)


# %%
def draw():
    names = {"x": "Average-case flatness\n(lower is flatter)", "y": "Test RLoss\n(lower is more robust)"}
    figure, panels = style.panels(len(methods), 4, height=1.5, sharex=True, sharey=True, **names)
    for axes, (title, slugs) in zip(panels, methods.items(), strict=True):
        axes.scatter(rows[X], rows[Y], s=5, color=style.LIGHT, linewidths=0, zorder=1)
        scatter.points(axes, rows[rows["family"] == "at"], X, Y, size=16)
        chosen = rows.set_index("variant", drop=False).loc[slugs]
        axes.plot(chosen[X], chosen[Y], color=looks.family(chosen["family"].iloc[0]).color, linewidth=1)
        for index in range(len(chosen)):
            size = 10 + 30 * index / (len(chosen) - 1)
            scatter.points(axes, chosen.iloc[[index]], X, Y, size=size)
        axes.set_title(title)
    edge = 1.05 * rows.loc[style.near(rows[X]), X].max()
    panels[0].set_xlim(right=edge)
    far = [f"{looks.name(row)} {row[X]:.3g}" for row in rows[rows[X] > edge].to_dict("records")]
    text = "Joined in the order of the values above each panel, which are those used here; larger markers: "
    text += "larger values; grey: all variants."
    style.legend(figure, scatter.families(panels), text, f"Beyond the axis: {', '.join(far)}." * bool(far))
    return figure


# %%
what, remedy = "variants that differ in a hyper-parameter", "add them to the experiment's variants"
notebook.show(draw, notebook.missing(X, Y) or notebook.missing_unless(methods, what, remedy))
