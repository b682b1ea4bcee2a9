# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Hyper-parameters, method by method
#
# RLoss against average-case flatness within each method: its variants in the order of the
# hyper-parameter, with a linear fit, over all other variants in grey.
#
# Claim: whatever makes a method more robust also makes it flatter. Weight clipping is the exception: it
# goes with worst-case flatness.

# %%
from robust_flatness.analysis.correlation import fit_line
from robust_flatness.plotting import curves, inputs, looks, scatter, style
from robust_flatness.plotting.labels import place_labels

notebook = inputs("hyperparameter_trends", globals().get("snakemake"))
X, Y = "avg_flatness_rloss", "test_rloss_pgd"
variants, published = notebook.variants, notebook.published.variants


# %%
def method(axes, frame, families, hollow):
    """The method's variants, joined in the order of the hyper-parameter; returns their labels."""
    order = curves.by_hyperparameter(frame, families)
    rows = frame.set_index("variant").loc[[slug for slug, _ in order], [X, Y]]
    line = fit_line(rows[X], rows[Y]) if len(rows) > 2 else None
    if line is not None:
        width, dashes = (0.7, (0, (4, 1.5))) if hollow else (1.6, "-")
        axes.plot(
            line.x,
            line.y,
            color=looks.color(families[0]),
            linewidth=width,
            linestyle=dashes,
            alpha=0.6,
            zorder=2,
        )
    scatter.points(axes, frame[frame["family"].isin(families)], X, Y, hollow, size=10 if hollow else 20)
    return [(*point, value) for point, (_, value) in zip(rows.to_numpy(), order, strict=True)]


def draw():
    rows = variants.dropna(subset=[X, Y])
    methods = {
        name: families for name, families in looks.methods().items() if rows["family"].isin(families).any()
    }
    columns = min(4, max(2, len(methods)))
    lines = -(-len(methods) // columns)
    figure, panels = style.grid(lines, columns, sharex=True, sharey=True)
    labels = []
    for axes, (name, families) in zip(panels, methods.items(), strict=False):
        axes.scatter(rows[X], rows[Y], s=5, color=style.LIGHT, linewidths=0, zorder=1)
        scatter.points(axes, rows[rows["family"] == "at"], X, Y, size=16)
        if not notebook.is_paper:
            method(axes, published, families, hollow=True)
        labels.append(method(axes, rows, families, hollow=False))
        axes.set_title(name, fontsize=7)
    for axes in panels[len(methods) :]:
        axes.set_axis_off()
    note = "Average-case flatness in RLoss (lower is flatter)\nStar: the AT baseline."
    if not notebook.is_paper:
        note += " Hollow, dashed: published, CIFAR-10" + (
            "." if notebook.same_data else "; compare directions, not values."
        )
    style.name_grid(figure, note, "Test RLoss (lower is more robust)")
    for axes, named in zip(panels, labels, strict=False):
        place_labels(axes, named, rows.loc[rows["family"] == "at", [X, Y]].to_numpy(), fontsize=5.5, reach=16)
    return figure


# %%
missing = notebook.missing(X, Y)
none = not any(variants["family"].isin(names).any() for names in looks.methods().values())
missing = missing or "Missing: variants that differ in a hyper-parameter." * bool(none)
notebook.save(style.missing_page("Hyper-parameter trends", missing) if missing else draw())
