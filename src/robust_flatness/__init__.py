"""Robust flatness: adversarial training, robustness and flatness of the robust loss.

After D. Stutz, M. Hein, B. Schiele, "Relating Adversarially Robust Generalization to Flat
Minima", ICCV 2021.
"""

__version__ = "0.1.0"
