# Trainings, and the models derived from them by scaling their convolutions.


def training_spec(wildcards):
    return EXPERIMENT.train_job(wildcards.variant, int(wildcards.seed)).json_text()


def pseudo_labels(wildcards):
    """Only variants that use the pool wait for its pseudo-labels."""
    if EXPERIMENT.train_jobs[wildcards.variant].training.unlabeled_fraction:
        return expand(rules.pseudo_label.output, seed=wildcards.seed)
    return []


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
    benchmark:
        f"{RUN}/timings/train.tsv"
    wildcard_constraints:
        variant=one_of(TRAINED),
    params:
        spec=training_spec,
        pseudo_labels=lambda wildcards, input: f"--pseudo-labels {input.pseudo_labels}" * bool(input.pseudo_labels),
        directory=RUN,
        compute=COMPUTE,
    resources:
        mem_mb=4000,
        runtime=720,
    shell:
        "robust-flatness train --spec {params.spec:q} --data {input.data} {params.pseudo_labels} "
        "--directory {params.directory} {params.compute} > {log} 2>&1"


def checkpoints_derived_from(wildcards):
    source = EXPERIMENT.variants[wildcards.variant].derived_from
    return expand(f"{RUN}/checkpoints/{{checkpoint}}.safetensors", variant=source, seed=wildcards.seed, checkpoint=CHECKPOINTS)


rule scale:
    input:
        checkpoints_derived_from,
    output:
        expand(f"{RUN}/checkpoints/{{checkpoint}}.safetensors", checkpoint=CHECKPOINTS, allow_missing=True),
    log:
        f"{RUN_LOG}/scale.log",
    wildcard_constraints:
        variant=one_of(DERIVED),
    params:
        factor=lambda wildcards: EXPERIMENT.variants[wildcards.variant].convolution_scale,
        directory=f"{RUN}/checkpoints",
    resources:
        mem_mb=2000,
        runtime=10,
    shell:
        "robust-flatness scale {input} --factor {params.factor} --variant {wildcards.variant} "
        "--directory {params.directory} > {log} 2>&1"


rule train:
    input:
        expand(f"{RUN}/checkpoints/last.safetensors", variant=TRAINED, seed=SEEDS),
