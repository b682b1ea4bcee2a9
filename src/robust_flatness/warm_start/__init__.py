"""Local jobs forked from one process that has imported torch: the server and its client.

A shortcut around the import, for the workflow's sake: nothing else of the package depends on it.
"""
