"""Networks that experiments train, one file each; the file's name is the network's.

`build(spec, classes, mean, std)` makes one. It has `reset_parameters(generator)`, and for self-supervision
`features(x)`, `feature_size` and a linear layer `classifier`. `PASSES` (width, passes per second on a CPU
core, and on a GPU) sets the time limits of jobs on a cluster.
"""
