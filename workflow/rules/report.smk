# Results kept in the repository, and messages at the end of a run.


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
        description=verbatim(EXPERIMENT.spec.description),
    script:
        "../scripts/keep_results.py"


STARTED = time.time()


onsuccess:
    opening = Path(placed(OPENING))
    if opening.exists() and opening.stat().st_mtime >= STARTED:
        print(opening.read_text(encoding="utf-8"), file=sys.stderr)


onerror:
    print("What is finished is kept: the same command goes on from there.", file=sys.stderr)
