# Trainings, and the models derived from them by scaling their convolutions.


def training_spec(wildcards):
    return EXPERIMENT.train_job(wildcards.variant, int(wildcards.seed)).json_text()


def training_minutes(wildcards, attempt):
    passes = training_passes(EXPERIMENT.train_jobs[wildcards.variant], EXPERIMENT.spec.data.count("train"))
    return attempt * minutes_for(passes)


def pseudo_labels(wildcards):
    """Only variants that use the pool wait for its pseudo-labels."""
    if EXPERIMENT.train_jobs[wildcards.variant].training.unlabeled_fraction:
        return expand(rules.pseudo_label.output, seed=wildcards.seed)
    return []


def pseudo_labels_option(wildcards, input):
    return f"--pseudo-labels {quote(str(input.pseudo_labels))}" if input.pseudo_labels else ""


def snapshots_option(wildcards):
    """All snapshots are kept only where a measure of snapshots is made."""
    series = [name for name in EXPERIMENT.measures if MEASURES[name].of_snapshots]
    measured = any(wildcards.variant in EXPERIMENT.measured_by(name) for name in series)
    return "--all-snapshots" if measured else "--best-and-last"


rule train_variant:
    input:
        data=rules.prepare.output,
        pseudo_labels=pseudo_labels,
    output:
        history=f"{RUN}/history.csv",
        last=f"{RUN}/checkpoints/last.safetensors",
        best=f"{RUN}/checkpoints/best.safetensors",
    log:
        f"{RUN_LOG}/train.log",
    wildcard_constraints:
        variant=one_of(TRAINED),
    resources:
        mem_mb=growing(4000),
        runtime=training_minutes,
        gpu=GPUS,
    params:
        spec=training_spec,
        pseudo_labels=pseudo_labels_option,
        directory=RUN,
        snapshots=snapshots_option,
        timings=f"{RUN}/timings/train.tsv",
        compute=COMPUTE,
    shell:
        "robust-flatness --timings {params.timings:q} train --spec {params.spec:q} "
        "--data {input.data:q} {params.pseudo_labels} --directory {params.directory:q} "
        "{params.snapshots} {params.compute} > {log:q} 2>&1"


def checkpoints_derived_from(wildcards):
    source = EXPERIMENT.variants[wildcards.variant].derived_from
    return expand(for_each_checkpoint(WEIGHTS), variant=source, seed=wildcards.seed)


rule scale:
    input:
        checkpoints_derived_from,
    output:
        for_each_checkpoint(WEIGHTS),
    log:
        f"{RUN_LOG}/scale.log",
    wildcard_constraints:
        variant=one_of(DERIVED),
    localrule: True
    resources:
        mem_mb=growing(2000),
        runtime=growing(10),
    params:
        factor=lambda wildcards: EXPERIMENT.variants[wildcards.variant].convolution_scale,
        directory=f"{RUN}/checkpoints",
    shell:
        "robust-flatness scale {input:q} --factor {params.factor} --variant {wildcards.variant} "
        "--directory {params.directory:q} > {log:q} 2>&1"


rule train:
    input:
        of_each(f"{RUN}/checkpoints/last.safetensors", TRAINED),
