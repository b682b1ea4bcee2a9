# A rule for each measure of the registry. Each gets its own settings alone: a changed radius remeasures
# flatness and nothing else.

HELD_OUT = EXPERIMENT.spec.data.count("early_stopping")
MOST_SNAPSHOTS = max(len(job.training.snapshot_epochs()) for job in EXPERIMENT.train_jobs.values())

MEASURED = {name: slugs for name in EXPERIMENT.measures if (slugs := EXPERIMENT.measured_by(name))}


def measure_spec(name):
    """The settings of a measure for the job's variant."""
    return lambda wildcards: EXPERIMENT.measures[name].for_variant(wildcards.variant).json_text()


def measuring_minutes(name):
    return minutes_for(MEASURES[name].passes(EXPERIMENT.measures[name], HELD_OUT, MOST_SNAPSHOTS))


def measured_files(name):
    return [f"{RUN}/{path}" for path in MEASURES[name].outputs]


for name, slugs in MEASURED.items():

    rule:
        name:
            name
        input:
            data=rules.prepare.output,
            checkpoints=for_each_checkpoint(WEIGHTS, MEASURES[name].weights),
        output:
            measured_files(name),
        log:
            f"{RUN_LOG}/{name}.log",
        wildcard_constraints:
            variant=one_of(slugs),
        resources:
            mem_mb=growing(4000),
            runtime=growing_minutes(measuring_minutes(name)),
            gpu=GPUS,
        params:
            measure=name,
            spec=measure_spec(name),
            directory=placed(RUN),
            timings=placed(f"{RUN}/timings/{name}.tsv"),
            compute=COMPUTE,
        shell:
            "robust-flatness --timings {params.timings:q} measure-checkpoints {params.measure} "
            "{input.checkpoints:q} --spec {params.spec:q} --data {input.data:q} --seed {wildcards.seed} "
            "--output {params.directory:q} {params.compute} > {log:q} 2>&1"


rule measure:
    input:
        [of_each(measured_files(name), slugs) for name, slugs in MEASURED.items()],
