"""`python -m robust_flatness`, the same as `robust-flatness`."""

from robust_flatness.cli import main

main()
