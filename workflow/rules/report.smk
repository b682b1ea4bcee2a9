# Results kept in the repository for its readers, and the last words of a run.


rule docs:
    input:
        tables=rules.tables.input,
        figures=rules.figures.input,
        models=f"{RESULTS}/models.csv",
    localrule: True
    params:
        directory=ROOT / "docs/results" / EXPERIMENT.name,
    script:
        "../scripts/keep_results.py"


STARTED = time.time()


onsuccess:
    claims = Path("paper_tables", EXPERIMENT.name, "claims.csv")
    if claims.exists() and claims.stat().st_mtime >= STARTED:
        print(verdicts(claims), file=sys.stderr)
