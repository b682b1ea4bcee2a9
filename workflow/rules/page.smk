# The interactive page: one self-contained HTML file.


rule write_page:
    input:
        **RESULT_TABLES,
        **CATALOGUE,
        claims=f"paper_tables/{EXPERIMENT.name}/claims.csv",
        correlations=f"paper_tables/{EXPERIMENT.name}/correlations.csv",
    output:
        report(
            f"report/{EXPERIMENT.name}/index.html",
            caption="../report/page.rst",
            category="Page",
        ),
    log:
        f"{LOGS}/page.log",
    localrule: True
    resources:
        mem_mb=1000,
        runtime=10,
    script:
        "../../report/index.py"


rule page:
    input:
        rules.write_page.output,
