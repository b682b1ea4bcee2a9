# The tables of the experiment, from the records of all networks that lie in its folder.


# Collecting compares networks with the data of their seed, so those of seeds not requested are kept current, too.
PREPARED = {f"{RESULTS}/data/{path.name}" for path in RESULTS_FOLDER.glob("data/seed-*.safetensors")}


rule collect:
    input:
        rules.measure.input,
        of_each(f"{RUN}/history.csv", TRAINED),
        sorted(PREPARED - {*of_each(f"{RESULTS}/data/seed-{{seed}}.safetensors", EXPERIMENT.variants)}),
    output:
        expand(f"{RESULTS}/{{table}}.csv", table=[*TABLES, "models"]),
    log:
        f"{LOGS}/collect.log",
    localrule: True
    params:
        spec=verbatim(collect_spec(EXPERIMENT, RESULTS_FOLDER).json_text()),
        directory=placed(RESULTS),
    shell:
        "robust-flatness collect --spec {params.spec:q} --directory {params.directory:q} 2>&1 | tee {log:q}"
