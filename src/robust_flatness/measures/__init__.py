"""The measures: one file each, with its settings, its formula, and the words that tables and figures use."""
