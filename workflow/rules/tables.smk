# The tables, and the claims judged: one notebook each, from the results tables alone.

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
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        caption=caption("tables"),
    script:
        "../../paper_tables/{wildcards.name}.py"


rule tables:
    input:
        expand(rules.table.output, name=PAPER_TABLES),
