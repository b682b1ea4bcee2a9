"""`python -m robust_flatness`, the same as `robust-flatness`."""

from robust_flatness.warm_start.launch import main

main()
