# The interactive page: one self-contained HTML file.


rule write_page:
    input:
        **RESULT_TABLES,
        **CATALOGUE,
        tables=expand(
            f"paper_tables/{EXPERIMENT.name}/{{name}}.csv",
            name=["claims", "later_claims", "correlations", "sharpness_comparison"],
        ),
    output:
        report(
            f"report/{EXPERIMENT.name}/index.html",
            caption="../report/page.rst",
            category="Page",
        ),
    log:
        f"{LOGS}/page.log",
    localrule: True
    params:
        description=verbatim(EXPERIMENT.spec.description),
    script:
        "../../report/index.py"


rule page:
    input:
        rules.write_page.output,
