"""Support of running computations: device and precision, CUDA graphs, random states, progress, provenance."""
