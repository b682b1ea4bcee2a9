"""Specifications of the tests that make up the rules in `config/claims.yaml`."""
