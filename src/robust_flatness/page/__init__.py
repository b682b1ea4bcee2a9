"""The interactive page of an experiment: one HTML file that works offline.

`data` makes the page's data from the tables, `charts` the pictures (Altair), `build` puts both into
`template.html` with its style, its script and Vega's JavaScript.
"""
