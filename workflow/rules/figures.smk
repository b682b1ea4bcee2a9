# The figures: one notebook each, from the results tables alone.

FIGURES = sorted(path.stem for path in (ROOT / "figures").glob("*.py"))
RESULT_TABLES = {table: f"{RESULTS}/{table}.csv" for table in TABLES}


PUBLISHED = sorted(of_repository("paper_tables/published").glob("*.csv"))


OWN_FAMILIES = EXPERIMENT.spec.model_dump(mode="json", include={"families"}, exclude_unset=True)
CAPTIONS = load_yaml(ROOT / "workflow/report/captions.yaml")


def caption(kind):
    """Return the caption of a figure or table for `snakemake --report`; "" for user-defined ones without."""
    return lambda wildcards: CAPTIONS[kind].get(wildcards.name, "")


# Inputs of every figure and table besides the results.
CATALOGUE = {
    "published": PUBLISHED,
    "variants": of_repository("config/variants.yaml"),
    "families": [of_repository("config/families.yaml"), f"{RESULTS}/families.yaml"],
}


# The experiment's own families, written beside its tables for figures, tables and page.
rule families:
    output:
        f"{RESULTS}/families.yaml",
    log:
        f"{LOGS}/families.log",
    localrule: True
    params:
        families=verbatim(canonical_json(OWN_FAMILIES.get("families", {}))),
    run:
        write_text(Path(output[0]), params.families + "\n")


rule figure:
    input:
        **RESULT_TABLES,
        **CATALOGUE,
    output:
        pdf=f"figures/{EXPERIMENT.name}/{{name}}.pdf",
        png=report(
            f"figures/{EXPERIMENT.name}/{{name}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{name}"},
        ),
    log:
        f"{LOGS}/figures/{{name}}.log",
    wildcard_constraints:
        name=one_of(FIGURES),
    localrule: True
    params:
        caption=caption("figures"),
    script:
        "../../figures/{wildcards.name}.py"


rule figures:
    input:
        expand(rules.figure.output, name=FIGURES),
