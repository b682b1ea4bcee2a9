"""Tables of results: their columns, reading, checking, writing, joining and merging.

`schema` has the columns, `rows` reads and writes CSV, `frames` and `aggregate` work with pandas, `printed`
brings the paper's printed numbers into the same tables, so that ours and theirs go through the same
figures, tables and claims; `collect`, `merging` and `importing` make the tables of an experiment. Nothing
here imports torch.
"""
