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


# Folders with tables of other runs of the experiment, whose rows join this run's.
OTHER_RUNS = [of_repository(path) for path in EXPERIMENT.spec.merge]

try:
    check_other_runs(OTHER_RUNS, config_digest(EXPERIMENT))
except FileError as error:
    sys.exit(f"error: merge: {error}")


rule collect:
    input:
        rules.measure.input,
        of_each(f"{RUN}/history.csv", TRAINED),
        others=[
            path
            for folder in OTHER_RUNS
            for path in sorted(folder.glob("*.csv*"))
            if path.name.split(".")[0] in (*TABLES, *OF_MEASURES)
        ],
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
        merge=" ".join(f"--merge {quote(str(folder))}" for folder in OTHER_RUNS),
    shell:
        "robust-flatness collect --spec {params.spec:q} --directory {params.directory:q} "
        "{params.merge} > {log:q} 2>&1"
