"""The interactive page of an experiment: one HTML file that works offline."""
