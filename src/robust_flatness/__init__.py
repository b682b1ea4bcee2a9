"""Robust flatness: adversarial training, robustness and flatness of the robust loss.

After D. Stutz, M. Hein, B. Schiele, "Relating Adversarially Robust Generalization to Flat
Minima", ICCV 2021.
"""

__version__ = "0.1.0"


def __getattr__(name: str):
    """`load_model`, imported when it is asked for: planning needs no torch."""
    if name == "load_model":
        from robust_flatness.loading import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
