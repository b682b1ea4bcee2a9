"""Statistics over the tables of results: correlations, groups, claims. No torch."""
