"""Both ends of the spectrum of a symmetric matrix that is known by its products with vectors."""

from typing import Protocol

import numpy as np

from robust_flatness.errors import ConfigError, warn

#: Up to this many weights the matrix is computed as a whole.
DENSE = 256
#: Products that differ by more than these shares are warned of, and refused.
ROUNDED, ASYMMETRIC = 0.01, 0.2
#: Restarts of Lanczos' method, each about 16 products with the Hessian, before tolerances are relaxed.
RESTARTS = 100


class Product(Protocol):
    """v -> H v for vectors of `size` numbers."""

    size: int
    dtype: type

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        """H v."""


def extremes(
    product: Product, k: int, tolerance: float, start: np.ndarray, rounded: bool = False
) -> tuple[np.ndarray, np.ndarray, bool]:
    """k // 2 smallest and k - k // 2 largest eigenvalues, ascending, their vectors as columns, and whether
    all met the tolerance.

    Raises
    ------
    ConfigError
        If the matrix is not symmetric, unless hardly anything but rounding may be left of it (`rounded`).
    """
    if product.size <= DENSE:
        matrix = np.stack([product(unit) for unit in np.eye(product.size)]).astype(float)
        _require_symmetric(np.linalg.norm(matrix - matrix.T), np.linalg.norm(matrix), rounded)
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        chosen = [*range(k // 2), *range(product.size - (k - k // 2), product.size)]
        return values[chosen], vectors[:, chosen], True
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    start = start.astype(product.dtype)
    operator = LinearOperator((product.size,) * 2, matvec=_Checked(product, rounded), dtype=product.dtype)
    try:
        values, vectors = eigsh(operator, k, which="BE", tol=tolerance, v0=start, maxiter=RESTARTS)
        order = np.argsort(values)
        return values[order].astype(float), vectors[:, order], True
    except _ZeroError:
        basis = np.zeros((product.size, k))
        basis[np.arange(k), np.arange(k)] = 1
        return np.zeros(k), basis, True
    except ArpackError:  # an end of the spectrum at 0 meets no relative tolerance
        return *_shifted(operator, k, tolerance, start), False


class _ZeroError(Exception):
    """The matrix maps a random vector to 0."""


class _Checked:
    """A product whose first two vectors, which Lanczos' method asks for anyway, tell whether the matrix is
    zero, and whether it is symmetric."""

    def __init__(self, product: Product, rounded: bool):
        self.product, self.rounded = product, rounded
        self._first: tuple[np.ndarray, np.ndarray] | None = None
        self._told = False

    def __call__(self, vector: np.ndarray) -> np.ndarray:
        image = self.product(vector)
        if self._first is None:
            if not image.any():
                raise _ZeroError
            self._first = vector.copy(), image
        elif not self._told:
            self._told = True
            first, first_image = self._first
            there, back = float(image @ first), float(first_image @ vector)
            # of an eigenvector hardly anything but rounding is left for the second vector
            least = 0.01 * np.linalg.norm(first_image) * np.linalg.norm(vector)
            _require_symmetric(abs(there - back), max(abs(there), abs(back), least), self.rounded)
        return image


def _require_symmetric(difference: float, size: float, rounded: bool) -> None:
    """Warn, or refuse, where products are not those of a symmetric matrix."""
    share = difference / size if size else 0.0
    if share > ASYMMETRIC and not rounded:
        raise ConfigError(
            "model: its Hessian is not symmetric: a layer's backward has a wrong derivative of its own"
        )
    if share > ROUNDED:
        reason = "a loss near 0 is rounded away" if rounded else "rounding, or a layer's own backward"
        warn(
            f"Hessian: products differ from those of a symmetric matrix by {100 * share:.0f} % ({reason}): "
            "eigenvalues are known no better"
        )


def _shifted(operator, k: int, tolerance: float, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same with a tolerance relative to the largest eigenvalue, for both ends."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    (bound,), _ = eigsh(operator, 1, which="LM", tol=tolerance, v0=start)
    shift = 2 * abs(float(bound))
    found = []
    for sign, count in ((-1, k // 2), (1, k - k // 2)):
        moved = LinearOperator(
            operator.shape,
            matvec=lambda v, sign=sign: sign * (operator @ v) + shift * v.ravel(),
            dtype=operator.dtype,
        )
        values, vectors = eigsh(moved, count, which="LA", tol=tolerance / 10, v0=start)
        order = np.argsort(sign * (values - shift))
        found.append((sign * (values.astype(float) - shift)[order], vectors[:, order]))
    return np.concatenate([v for v, _ in found]), np.concatenate([v for _, v in found], axis=1)
