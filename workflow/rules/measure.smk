# Measures of the last and, but for the dearer ones, the early-stopped checkpoint. Each rule gets its
# own settings alone: a changed radius remeasures flatness and nothing else.

MEASURES = EXPERIMENT.spec.measures

HELD_OUT = EXPERIMENT.spec.data.early_stopping
MOST_SNAPSHOTS = max(len(job.training.snapshot_epochs()) for job in EXPERIMENT.train_jobs.values())

MEASURED = {
    "robustness": list(EXPERIMENT.variants),
    "flatness": list(EXPERIMENT.variants),
    "hessian": EXPERIMENT.measured_by("hessian"),
    "landscape": EXPERIMENT.measured_by("landscape"),
}


for measure, slugs in MEASURED.items():

    if slugs:

        rule:
            name:
                measure
            input:
                data=rules.prepare.output,
                checkpoints=for_each_checkpoint(WEIGHTS, checkpoints_of(measure)),
            output:
                for_each_checkpoint(f"{RUN}/measures/{{which}}/{measure}.json", checkpoints_of(measure)),
            log:
                f"{RUN_LOG}/{measure}.log",
            wildcard_constraints:
                variant=one_of(slugs),
            resources:
                mem_mb=growing(4000),
                runtime=growing(minutes_for(measuring_passes(getattr(MEASURES, measure), HELD_OUT))),
                gpu=GPUS,
            params:
                command=measure,
                spec=getattr(MEASURES, measure).json_text(),
                directory=f"{RUN}/measures",
                timings=f"{RUN}/timings/{measure}.tsv",
                compute=COMPUTE,
            shell:
                "robust-flatness --timings {params.timings} {params.command} {input.checkpoints} "
                "--spec {params.spec:q} --data {input.data} --seed {wildcards.seed} "
                "--output {params.directory} {params.compute} > {log} 2>&1"


def series_spec(wildcards):
    """The eigenvalue, the dearest part, only for the variants named for it."""
    if wildcards.variant in MEASURES.hessian_series_variants:
        return MEASURES.series.json_text()
    return MEASURES.series.model_copy(update={"hessian": None}).json_text()


if EXPERIMENT.measured_by("series"):

    rule series:
        input:
            data=rules.prepare.output,
            last=f"{RUN}/checkpoints/last.safetensors",
        output:
            f"{RUN}/series.csv",
        log:
            f"{RUN_LOG}/series.log",
        wildcard_constraints:
            variant=one_of(EXPERIMENT.measured_by("series")),
        resources:
            mem_mb=growing(4000),
            runtime=growing(minutes_for(series_passes(MEASURES.series, MOST_SNAPSHOTS))),
            gpu=GPUS,
        params:
            spec=series_spec,
            directory=f"{RUN}/checkpoints",
            timings=f"{RUN}/timings/series.tsv",
            compute=COMPUTE,
        shell:
            "robust-flatness --timings {params.timings} series {params.directory} "
            "--spec {params.spec:q} --data {input.data} --seed {wildcards.seed} "
            "--output {output} {params.compute} > {log} 2>&1"


rule measure:
    input:
        [
            expand(
                for_each_checkpoint(f"{RUN}/measures/{{which}}/{measure}.json", checkpoints_of(measure)),
                variant=slugs,
                seed=SEEDS,
            )
            for measure, slugs in MEASURED.items()
        ],
        expand(f"{RUN}/series.csv", variant=EXPERIMENT.measured_by("series"), seed=SEEDS),
