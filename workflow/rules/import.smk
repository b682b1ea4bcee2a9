# Instead of training and measuring: tables that somebody made elsewhere.

TABLE = Path(EXPERIMENT.spec.results_table)


rule import_table:
    input:
        TABLE if TABLE.exists() else ROOT / TABLE,
    output:
        expand(f"{RESULTS}/{{table}}.csv", table=TABLES),
    log:
        f"{LOGS}/import.log",
    localrule: True
    params:
        directory=RESULTS,
    shell:
        "robust-flatness import-table {input:q} --directory {params.directory:q} > {log:q} 2>&1"
