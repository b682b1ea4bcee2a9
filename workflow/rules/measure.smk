# A rule for each measure of the registry. Each gets its own settings alone: a changed radius remeasures
# flatness and nothing else.

HELD_OUT = EXPERIMENT.spec.data.count("early_stopping")
SNAPSHOTS = [len(job.training.snapshot_epochs()) for job in EXPERIMENT.train_jobs.values()]

# (rule, measure, variants, whether they are variants of training): networks of others have one checkpoint.
MEASURED = []
for name in EXPERIMENT.measures:
    slugs = EXPERIMENT.measured_by(name)
    own = [slug for slug in slugs if slug not in NETWORKS]
    others = [slug for slug in slugs if slug in NETWORKS]
    MEASURED += [(name, name, own, True)] if own else []
    MEASURED += [(f"{name}_of_networks", name, others, False)] if others else []


def measure_spec(name):
    """The settings of a measure for the job's variant."""
    return lambda wildcards: EXPERIMENT.measures[name].for_variant(wildcards.variant).json_text()


def measuring_minutes(name, own):
    passes = MEASURES[name].passes(EXPERIMENT.measures[name], HELD_OUT, max(SNAPSHOTS, default=0))
    return minutes_for(passes, own)


def measured_files(name, own):
    return [f"{RUN}/{path}" for path in MEASURES[name].outputs(own)]


for rule_name, name, slugs, own in MEASURED:

    rule:
        name:
            rule_name
        input:
            data=rules.prepare.output,
            checkpoints=for_each_checkpoint(WEIGHTS, MEASURES[name].weights(own)),
        output:
            measured_files(name, own),
        log:
            f"{RUN_LOG}/{name}.log",
        wildcard_constraints:
            variant=one_of(slugs),
        resources:
            mem_mb=growing(4000),
            runtime=growing_minutes(measuring_minutes(name, own)),
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
        [of_each(measured_files(name, own), slugs) for _, name, slugs, own in MEASURED],
