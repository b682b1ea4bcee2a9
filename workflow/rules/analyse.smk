# The tables of the experiment, from the files of its jobs.


# Rows of variants that this run does not ask for stay in the tables, if they were made with its settings.
KEPT, LOST = other_variants(EXPERIMENT, RESULTS_FOLDER / "models.csv")
if KEPT:
    named = ", ".join(KEPT) if len(KEPT) <= 5 else f"{len(KEPT)} variants"
    print(f"note: {RESULTS_FOLDER}/models.csv keeps its rows of {named}, not asked for here", file=sys.stderr)
if LOST:
    print(
        f"note: {RESULTS_FOLDER}/models.csv loses its rows of {', '.join(LOST)}: not asked for here, and made "
        f"with other settings. A run of another name leaves it alone: --config experiment={EXPERIMENT.name}-2",
        file=sys.stderr,
    )


rule collect:
    input:
        rules.measure.input,
        of_each(f"{RUN}/history.csv", TRAINED),
    output:
        [update(f"{RESULTS}/{table}.csv") for table in tables_of(EXPERIMENT.measures)],
    log:
        f"{LOGS}/collect.log",
    localrule: True
    resources:
        mem_mb=growing(2000),
        runtime=growing_minutes(10),
    params:
        spec=collect_spec(EXPERIMENT, KEPT).json_text(),
        directory=placed(RESULTS),
    shell:
        "robust-flatness collect --spec {params.spec:q} --directory {params.directory:q} > {log:q} 2>&1"
