"""Adversarial training and its variants."""
