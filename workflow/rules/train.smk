# Trainings, and the models derived from them by scaling their convolutions.


def training_spec(wildcards):
    return EXPERIMENT.train_job(wildcards.variant, int(wildcards.seed)).json_text()


def whole_training(variant):
    """Return the time limit of a whole training, in minutes."""
    return minutes_for(training_passes(EXPERIMENT.train_jobs[variant], EXPERIMENT.spec.data.count("train")))


# Number of jobs of each training: one that may exceed the time limit of a job on a cluster is split into several, each
# of which resumes the previous one.
PIECES = {slug: math.ceil(whole_training(slug) / (LIMIT - OVERHEAD_MINUTES)) for slug in TRAINED}
LONG = [slug for slug, pieces in PIECES.items() if pieces > 1]


def training_minutes(wildcards):
    return OVERHEAD_MINUTES + math.ceil(whole_training(wildcards.variant) / PIECES[wildcards.variant])


def piece_before(wildcards):
    """Return the marker file of the previous piece; none for the first."""
    before = int(wildcards.get("piece", PIECES[wildcards.variant])) - 1
    return expand(f"{RUN}/pieces/{before}", **wildcards) if before else []


def pseudo_labels(wildcards):
    """Return the pseudo-labels if the variant uses the unlabelled pool; others do not wait for them."""
    if EXPERIMENT.train_jobs[wildcards.variant].training.unlabeled_fraction:
        return expand(rules.pseudo_label.output, seed=wildcards.seed)
    return []


def pseudo_labels_option(wildcards, input):
    return f"--pseudo-labels {quote(str(input.pseudo_labels))}" if input.pseudo_labels else ""


def code_of_training(wildcards):
    return [*map(as_given, source_files(EXPERIMENT.train_jobs[wildcards.variant].training.objective))]


def snapshots_option(wildcards):
    """Return the option that keeps all snapshots if a measure of snapshots is taken, else best and last."""
    measured = any(MEASURES[name].of_snapshots for name in EXPERIMENT.measures_of(wildcards.variant))
    return "--all-snapshots" if measured else "--best-and-last"


def piece_options(wildcards):
    """Return the options of a piece, which ends after its share of the epochs."""
    epochs = EXPERIMENT.train_jobs[wildcards.variant].training.epochs
    until = math.ceil(epochs * int(wildcards.piece) / PIECES[wildcards.variant])
    return f"{snapshots_option(wildcards)} --until {until}"


rule train_variant:
    input:
        data=rules.prepare.output,
        pseudo_labels=pseudo_labels,
        code=code_of_training,
        before=piece_before,
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
    resources:
        mem_mb=memory,
        runtime=time_limit(training_minutes),
        gpu=GPUS,
    params:
        spec=training_spec,
        pseudo_labels=pseudo_labels_option,
        directory=placed(RUN),
        options=snapshots_option,
        compute=COMPUTE,
        # an objective of the kit adds no value to the recorded ones: none of its trainings reruns
        code=lambda wildcards: contents_digest(files) if (files := code_of_training(wildcards)) else COMPUTE,
    shell:
        "robust-flatness train --spec {params.spec:q} --data {input.data:q} {params.pseudo_labels} "
        "--directory {params.directory:q} {params.options} {params.compute} > {log:q} 2>&1"


if LONG:

    use rule train_variant as train_piece with:
        output:
            temp(touch(f"{RUN}/pieces/{{piece}}")),
        log:
            f"{RUN_LOG}/train-{{piece}}.log",
        benchmark:
            f"{RUN}/timings/train-{{piece}}.tsv"
        wildcard_constraints:
            variant=one_of(LONG),
            piece=r"\d+",
        params:
            options=piece_options,


def checkpoints_derived_from(wildcards):
    source = EXPERIMENT.variants[wildcards.variant].derived_from
    return expand(BOTH_WEIGHTS, variant=source, seed=wildcards.seed)


rule scale:
    input:
        checkpoints_derived_from,
    output:
        BOTH_WEIGHTS,
    log:
        f"{RUN_LOG}/scale.log",
    wildcard_constraints:
        variant=one_of(DERIVED),
    localrule: True
    params:
        factor=lambda wildcards: EXPERIMENT.variants[wildcards.variant].convolution_scale,
        directory=placed(f"{RUN}/checkpoints"),
    shell:
        "robust-flatness scale {input:q} --factor {params.factor} --variant {wildcards.variant} "
        "--directory {params.directory:q} > {log:q} 2>&1"


rule train:
    input:
        of_each(f"{RUN}/checkpoints/last.safetensors", TRAINED),
