# Results kept in the repository, the opening page of the report, and messages at the end of a run.


rule docs:
    input:
        tables=rules.tables.input,
        figures=rules.figures.input,
        results=expand(f"{RESULTS}/{{table}}.csv", table=[*TABLES, "models"]),
    localrule: True
    params:
        directory=ROOT / "docs/results" / EXPERIMENT.name,
        captions=CAPTIONS,
        notebooks=ROOT,
        description=EXPERIMENT.spec.description,
    script:
        "../scripts/keep_results.py"


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
        description=EXPERIMENT.spec.description,
    script:
        "../scripts/open_report.py"


STARTED = time.time()


onsuccess:
    claims = Path(placed(f"paper_tables/{EXPERIMENT.name}/claims.csv"))
    if claims.exists() and claims.stat().st_mtime >= STARTED:
        print(verdicts(claims), file=sys.stderr)


onerror:
    print("What is finished is kept: the same command goes on from there.", file=sys.stderr)
