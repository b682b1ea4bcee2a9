"""Tables of results: records, their pivots, averages over seeds, and the paper's printed numbers.

`records` is the table on disk, `frames` pivots it, `schema` names its quantities. `collect` and `importing`
write the tables of an experiment, from its networks or from a wide table. Nothing here imports torch.
"""
