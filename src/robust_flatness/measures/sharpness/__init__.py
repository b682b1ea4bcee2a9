"""Measures of sharpness, margin and capacity other than the paper's, on the clean and the robust loss."""
