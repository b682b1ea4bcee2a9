"""Measures of checkpoints and of any network."""
