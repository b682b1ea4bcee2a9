# Instead of training and measuring: tables that somebody made elsewhere.


rule import_table:
    input:
        of_repository(EXPERIMENT.spec.results_table),
    output:
        expand(f"{RESULTS}/{{table}}.csv", table=[*TABLES, "models"]),
    log:
        f"{LOGS}/import.log",
    localrule: True
    params:
        directory=placed(RESULTS),
    shell:
        "robust-flatness import-table {input:q} --directory {params.directory:q} > {log:q} 2>&1"
