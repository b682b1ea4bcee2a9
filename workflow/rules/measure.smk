# One job per network runs all measures at its checkpoints and snapshots. Finished parts are stored one by one, so that
# a changed setting reruns only the measures that it affects.

RECORDS = [f"{RUN}/records.csv", f"{RUN}/examples.csv"]
ALL_MEASURED = [slug for slug in EXPERIMENT.variants if EXPERIMENT.measures_of(slug)]


def measuring_minutes(wildcards):
    passes = sum(measuring_passes(EXPERIMENT, wildcards.variant).values())
    return minutes_for(passes, wildcards.variant not in NETWORKS)


def checkpoints_to_measure(wildcards):
    names = CHECKPOINTS[:1] if wildcards.variant in NETWORKS else CHECKPOINTS
    return expand(WEIGHTS, which=names, **wildcards)


rule measure_network:
    input:
        data=rules.prepare.output,
        checkpoints=checkpoints_to_measure,
        code=lambda wildcards: map(as_given, measuring_code(EXPERIMENT, wildcards.variant)),
    output:
        RECORDS,
    log:
        f"{RUN_LOG}/measure.log",
    benchmark:
        f"{RUN}/timings/measure.tsv"
    wildcard_constraints:
        variant=one_of(ALL_MEASURED),
    resources:
        mem_mb=memory,
        runtime=time_limit(measuring_minutes),
        gpu=GPUS,
    params:
        job=lambda wildcards: measuring_job(EXPERIMENT, wildcards.variant),
        directory=placed(RUN),
        version=__version__,  # tables leave out records of other versions of this package
        compute=COMPUTE,
    shell:
        "robust-flatness measure-network --spec {params.job:q} --data {input.data:q} "
        "--directory {params.directory:q} --seed {wildcards.seed} {params.compute} > {log:q} 2>&1"


rule measure:
    input:
        [of_each(path, ALL_MEASURED) for path in RECORDS],
