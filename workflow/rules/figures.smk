# The figures: one notebook each, from the results tables alone.

FIGURES = sorted(path.stem for path in (ROOT / "figures").glob("*.py"))
# Drawn from results as they are, a table that is not there counts as empty.
RESULT_TABLES = {
    table: f"{RESULTS}/{table}.csv"
    for table in TABLES
    if MAKES_TABLES or Path(RESULTS, f"{table}.csv").exists()
}


def of_repository(path):
    """A file or folder of the repository, relative where Snakemake runs in it."""
    return Path(path) if Path(path).exists() else ROOT / path


PUBLISHED = sorted(of_repository("paper_tables/published").glob("*.csv"))


rule figure:
    input:
        **RESULT_TABLES,
        published=PUBLISHED,
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
    resources:
        mem_mb=1000,
        runtime=10,
    script:
        "../../figures/{wildcards.name}.py"


rule figures:
    input:
        expand(rules.figure.output, name=FIGURES),
