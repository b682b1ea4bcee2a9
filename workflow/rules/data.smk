# The dataset's disjoint splits, and pseudo-labels for the pool without labels.

DOWNLOADS = EXPERIMENT.spec.data.name == "cifar10" and EXPERIMENT.spec.data.path is None


def source_of_data(wildcards):
    """Return the files that the dataset is read from; if they change, it is prepared again."""
    if DOWNLOADS:
        return rules.download.output
    return [as_given(path) for path in data_files(EXPERIMENT.spec.data)]


if DOWNLOADS:

    rule download:
        output:
            [as_given(f"{CIFAR10_FOLDER}/{name}") for name in CIFAR10_FILES],
        log:
            "logs/data/cifar10.log",
        localrule: True
        shell:
            "robust-flatness download-cifar10 > {log:q} 2>&1"


rule prepare:
    input:
        source_of_data,
    output:
        f"{RESULTS}/data/seed-{{seed}}.safetensors",
    log:
        f"{LOGS}/data/seed-{{seed}}.log",
    localrule: True
    params:
        spec=EXPERIMENT.spec.data.json_text(),
        source=lambda wildcards: data_state(EXPERIMENT.spec.data),
    shell:
        "robust-flatness prepare --spec {params.spec:q} --seed {wildcards.seed} --output {output:q} > {log:q} 2>&1"


def pseudo_label_minutes(wildcards):
    return minutes_for(training_passes(EXPERIMENT.baseline, EXPERIMENT.spec.data.count("train")))


rule pseudo_label:
    input:
        rules.prepare.output,
    output:
        f"{RESULTS}/data/pseudo-labels-{{seed}}.safetensors",
    log:
        f"{LOGS}/data/pseudo-labels-{{seed}}.log",
    resources:
        mem_mb=memory,
        runtime=time_limit(pseudo_label_minutes),
        gpu=GPUS,
    params:
        spec=verbatim(EXPERIMENT.baseline.json_text()),
        compute=COMPUTE,
    shell:
        "robust-flatness pseudo-label --spec {params.spec:q} --seed {wildcards.seed} "
        "--data {input:q} --output {output:q} {params.compute} > {log:q} 2>&1"
