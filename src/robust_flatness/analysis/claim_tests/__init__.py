"""Specifications of the tests of which the rules in `config/claims.yaml` consist."""
