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
    return CollectSpec(variants=entries, baseline=baseline, seeds=SEEDS)


rule collect:
    input:
        rules.measure.input,
        of_each(f"{RUN}/history.csv", TRAINED),
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
    shell:
        "robust-flatness collect --spec {params.spec:q} --directory {params.directory:q} > {log:q} 2>&1"
