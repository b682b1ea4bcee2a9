# The dataset's disjoint splits, and pseudo-labels for the pool without labels.


rule prepare:
    output:
        f"{RESULTS}/data/seed-{{seed}}.npz",
    log:
        f"{LOGS}/data/seed-{{seed}}.log",
    localrule: True
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        spec=EXPERIMENT.spec.data.json_text(),
    shell:
        "robust-flatness prepare --spec {params.spec:q} --seed {wildcards.seed} --output {output:q} > {log:q} 2>&1"


rule pseudo_label:
    input:
        rules.prepare.output,
    output:
        f"{RESULTS}/data/pseudo-labels-{{seed}}.npz",
    log:
        f"{LOGS}/data/pseudo-labels-{{seed}}.log",
    resources:
        mem_mb=growing(4000),
        runtime=growing(minutes_for(training_passes(EXPERIMENT.baseline, EXPERIMENT.spec.data.train))),
        gpu=GPUS,
    params:
        spec=EXPERIMENT.baseline.json_text(),
        compute=COMPUTE,
    shell:
        "robust-flatness pseudo-label --spec {params.spec:q} --seed {wildcards.seed} "
        "--data {input:q} --output {output:q} {params.compute} > {log:q} 2>&1"
