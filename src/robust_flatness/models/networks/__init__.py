"""Networks that experiments train, one file each; the file's name is the network's.

`build(spec, classes, mean, std)` makes one. It has `reset_parameters(generator)`, and for self-supervision
`features(x)`, `feature_size` and a linear layer `classifier`. `COST` is what an image of
`side` pixels through `width` channels costs: it sets the time limits of jobs on a cluster and what
`robust-flatness plan` says.
"""
