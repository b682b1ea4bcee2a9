# The tables, and the claims judged: one notebook each, from the results tables alone. The verdicts open the report.

#: Files of claims that a table evaluates.
CLAIMS = {
    "claims": of_repository("config/claims.yaml"),
    "later_claims": [of_repository("config/claims.yaml"), of_repository("config/later-claims.yaml")],
}
PAPER_TABLES = sorted(path.stem for path in (ROOT / "paper_tables").glob("*.py"))


rule table:
    input:
        **RESULT_TABLES,
        **CATALOGUE,
        rules=lambda wildcards: CLAIMS.get(wildcards.name, []),
    output:
        csv=f"paper_tables/{EXPERIMENT.name}/{{name}}.csv",
        md=f"paper_tables/{EXPERIMENT.name}/{{name}}.md",
        tex=f"paper_tables/{EXPERIMENT.name}/{{name}}.tex",
        html=report(
            f"paper_tables/{EXPERIMENT.name}/{{name}}.html",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{name}"},
        ),
    log:
        f"{LOGS}/tables/{{name}}.log",
    wildcard_constraints:
        name=one_of(PAPER_TABLES),
    localrule: True
    params:
        caption=caption("tables"),
    script:
        "../../paper_tables/{wildcards.name}.py"


# `snakemake --report` opens with the verdicts, once there are some.
OPENING = f"report/{EXPERIMENT.name}/opening.rst"
if Path(placed(OPENING)).exists():

    report: Path(placed(OPENING)).resolve()


rule report_opening:
    input:
        claims=f"paper_tables/{EXPERIMENT.name}/claims.csv",
    output:
        OPENING,
    log:
        f"{LOGS}/report_opening.log",
    localrule: True
    params:
        experiment=EXPERIMENT.name,
        description=verbatim(EXPERIMENT.spec.description),
    script:
        "../scripts/open_report.py"


rule tables:
    input:
        expand(rules.table.output, name=PAPER_TABLES),
        rules.report_opening.output,
