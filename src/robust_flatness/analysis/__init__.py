"""Statistics over the tables of results: correlations, comparison of measures, claims. No torch."""
