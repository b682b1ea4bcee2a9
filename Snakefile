# Adversarially robust generalisation and flat minima, from data to every figure and table.
#
#   snakemake --cores all              the default experiment (config/fashion.yaml), everything
#   snakemake --cores all figures      figures only; trains nothing once results/ holds the tables
#   snakemake --configfile config/published.yaml --cores all
#
# Other targets: train, measure, tables, page. Options: --config variants=at,trades-6 seeds=0,1

from snakemake.utils import min_version

min_version("9.0")

if not workflow.overwrite_configfiles:

    configfile: f"{workflow.basedir}/config/fashion.yaml"


include: "workflow/rules/common.smk"


if MAKES_TABLES:
    if EXPERIMENT.spec.results_table:

        include: "workflow/rules/import.smk"

    else:

        include: "workflow/rules/data.smk"
        include: "workflow/rules/train.smk"
        include: "workflow/rules/networks.smk"
        include: "workflow/rules/measure.smk"
        include: "workflow/rules/analyse.smk"


include: "workflow/rules/figures.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/page.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        rules.figures.input,
        rules.tables.input,
        rules.page.input,
