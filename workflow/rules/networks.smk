# External networks are loaded (downloaded if the config names no file), checked, and saved as checkpoints.
for slug, variant in NETWORKS.items():
    path = variant.network.weights
    if path and not weights_file(path)[0].is_file():
        sys.exit(f"error: the configuration cannot be used\nmodels.{slug}.weights: {path}: no such file")


def check_networks():
    """Before any job runs, check that networks without a checkpoint can be loaded and fit data of the kit."""
    data, wrong = EXPERIMENT.spec.data, 0
    for name, variant in NETWORKS.items():
        weights = expand(WEIGHTS, variant=name, seed=EXPERIMENT.seeds_of(name), which="last")[0]
        if not Path(placed(weights)).exists():
            command = ["robust-flatness", "check-network", "--spec", variant.network.job_text()]
            wrong += subprocess.call([*command, "--data-spec", data.json_text(), "--name", name])
    if wrong:
        sys.exit("error: the configuration cannot be used")


def weights_of_network(wildcards):
    path = NETWORKS[wildcards.variant].network.weights
    return [as_given(weights_file(path)[0])] if path else []


def code_of_network(wildcards):
    return [*map(as_given, source_files(NETWORKS[wildcards.variant].network.model))]


rule network:
    input:
        data=rules.prepare.output,
        weights=weights_of_network,
        code=code_of_network,
    output:
        expand(WEIGHTS, which="last", allow_missing=True),
    log:
        f"{RUN_LOG}/network.log",
    wildcard_constraints:
        variant=one_of(NETWORKS),
    priority: 1
    localrule: True
    params:
        spec=lambda wildcards: NETWORKS[wildcards.variant].network.job_text(),
        contents=lambda wildcards: contents_digest(weights_of_network(wildcards) + code_of_network(wildcards)),
    shell:
        "robust-flatness import-network --spec {params.spec:q} --data {input.data:q} --seed {wildcards.seed} "
        "--name {wildcards.variant} --output {output:q} > {log:q} 2>&1"
