"""What surrounds a computation: device and precision, CUDA graphs, random states, progress, provenance."""
