"""The tests of which the rules in `config/claims.yaml` consist: a specification of each kind, which judges an
experiment."""
