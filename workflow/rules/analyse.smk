# The tables of the experiment, from the files of its jobs.


def collect_spec():
    """Settings are given as differences from the first variant's: a command line is bounded."""
    baseline = applied_settings(next(iter(EXPERIMENT.train_jobs.values())))
    entries = {}
    for slug, variant in EXPERIMENT.variants.items():
        job = EXPERIMENT.train_jobs[variant.derived_from or slug]
        entries[slug] = VariantEntry(
            label=variant.label,
            family=variant.family,
            derived=variant.derived_from is not None,
            epochs=job.training.epochs,
            seeds=None if EXPERIMENT.seeds_of(slug) == SEEDS else EXPERIMENT.seeds_of(slug),
            settings=dict(applied_settings(job).items() - baseline.items()),
            measures=[name for name, slugs in MEASURED.items() if slug in slugs],
        )
    return CollectSpec(variants=entries, baseline=baseline, seeds=SEEDS, config=config_digest(EXPERIMENT))


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
        others=[path for folder in OTHER_RUNS for path in sorted(folder.glob("*.csv")) if path.stem in TABLES],
    output:
        expand(f"{RESULTS}/{{table}}.csv", table=TABLES),
    log:
        f"{LOGS}/collect.log",
    localrule: True
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        spec=collect_spec().json_text(),
        directory=RESULTS,
        merge=" ".join(f"--merge {quote(str(folder))}" for folder in OTHER_RUNS),
    shell:
        "robust-flatness collect --spec {params.spec:q} --directory {params.directory:q} "
        "{params.merge} > {log:q} 2>&1"
