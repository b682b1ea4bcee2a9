# Instead of training and measuring: tables that somebody made elsewhere.


rule import_table:
    input:
        EXPERIMENT.spec.results_table,
    output:
        expand(f"{RESULTS}/{{table}}.csv", table=TABLES),
    log:
        f"{LOGS}/import.log",
    params:
        directory=RESULTS,
    shell:
        "robust-flatness import-table {input} --directory {params.directory} > {log} 2>&1"
