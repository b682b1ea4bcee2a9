# Import of an existing table of results, in place of training and measuring.


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
        contents=contents_digest([of_repository(EXPERIMENT.spec.results_table)]),
    shell:
        "robust-flatness import-table {input:q} --directory {params.directory:q} > {log:q} 2>&1"
