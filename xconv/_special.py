"""Functions that the array API standard lacks, or has only in a form that overflows."""

from __future__ import annotations

from math import inf, sqrt

from xconv._namespace import Array, Namespace, clipped, differentiates, full_like

# erfc(z) = exp(-z^2) / (1 + z) * sum of c[k] T_k(t) for z >= 0, with t = (z - 2) / (z + 2): the coefficients of
# the Chebyshev series of (1 + z) exp(z^2) erfc(z) over all of z >= 0, computed in 60 digits by the discrete cosine
# sum over 160 nodes. The first one left out is 4e-17.
_ERFC = (
    0.77669137760708,
    -0.22836472289031626,
    0.007865722326596006,
    0.010488864927603514,
    -0.0025468631391996634,
    -2.8878658172054086e-05,
    8.7999437989666e-05,
    -3.4745017165396845e-07,
    -3.5980662238990517e-06,
    -1.4381599404319034e-07,
    1.5958722403552472e-07,
    2.1492268688640917e-08,
    -6.066687732174204e-09,
    -1.954937092727581e-09,
    7.153685898778454e-11,
    1.2872321182257737e-10,
    1.7599922759007792e-11,
    -5.056596830484809e-12,
    -2.165472713165219e-12,
    -1.039297535029439e-13,
    1.298686474521839e-13,
    3.729969690761237e-14,
    -7.075626243500149e-16,
    -3.006041419279411e-15,
    -7.191974020084537e-16,
    4.6706732045434017e-17,
    7.091842371207539e-17,
)


def number(x: Array, value: float) -> Array:
    return full_like(x, (), value, x.dtype)


def at_least(x: Array, low: float, xp: Namespace) -> Array:
    """max(x, low), constant at its kink; NaN stays NaN."""
    if differentiates(xp):
        return xp.where(x <= low, number(x, low), x)
    y = clipped(x, low, inf)
    return xp.maximum(x, number(x, low)) if y is None else y


def at_most(x: Array, high: float, xp: Namespace) -> Array:
    """min(x, high), constant at its kink; NaN stays NaN."""
    if differentiates(xp):
        return xp.where(x >= high, number(x, high), x)
    y = clipped(x, -inf, high)
    return xp.minimum(x, number(x, high)) if y is None else y


def between(x: Array, low: float, high: float, xp: Namespace) -> Array:
    y = clipped(x, low, high)
    return at_most(at_least(x, low, xp), high, xp) if y is None else y


def negative_part(x: Array, xp: Namespace) -> Array:
    """min(x, 0), whose slope at 0 is that of negative numbers."""
    if differentiates(xp):
        return xp.where(x > 0, number(x, 0), x)
    return xp.minimum(x, number(x, 0))


def logistic(x: Array, xp: Namespace) -> Array:
    e = xp.exp(_below_zero(x, xp))  # never above one
    return xp.where(x >= 0, number(x, 1), e) / (1 + e)


def log1p_exp(x: Array, xp: Namespace) -> Array:
    # At 0 the first term must be of the side that the second one is on, for the sum to have a derivative there.
    rectified = xp.where(x < 0, number(x, 0), x) if differentiates(xp) else xp.maximum(x, number(x, 0))
    return rectified + xp.log1p(xp.exp(_below_zero(x, xp)))


def _below_zero(x: Array, xp: Namespace) -> Array:
    """-abs(x), smooth in 0 as seen from positive numbers."""
    return xp.where(x < 0, x, -x) if differentiates(xp) else -xp.abs(x)


def normal_cdf(x: Array, xp: Namespace) -> Array:
    """P(X <= x) = erfc(-x / sqrt(2)) / 2, from erfc of the absolute value: no cancellation in either tail."""
    z = (xp.where(x > 0, x, -x) if differentiates(xp) else xp.abs(x)) * sqrt(0.5)
    t = 1 - 4 / (z + 2)
    ahead, here = xp.zeros_like(z), xp.zeros_like(z)
    for c in reversed(_ERFC[1:]):  # Clenshaw's recurrence
        ahead, here = here, c + 2 * t * here - ahead
    tail = 0.5 * xp.exp(-z * z) / (1 + z) * (_ERFC[0] + t * here - ahead)
    return xp.where(x > 0, 1 - tail, tail)


def powers(x: Array, p: float, xp: Namespace) -> Array:
    """abs(x) ** p, whose derivatives at 0 are taken as 0: those of p below 2 are infinite there, or have a jump."""
    if p == 2:
        return x * x
    if not differentiates(xp):
        return xp.abs(x) if p == 1 else xp.abs(x) ** p
    zero = x == 0
    magnitude = xp.abs(xp.where(zero, number(x, 1), x))
    return xp.where(zero, number(x, 0), magnitude if p == 1 else magnitude**p)


def root(y: Array, p: float, xp: Namespace) -> Array:
    """The root of order p of what is not negative, constant around 0."""
    if p == 1:
        return y
    if not differentiates(xp):
        return xp.sqrt(y) if p == 2 else y ** (1 / p)
    zero = y == 0
    y = xp.where(zero, number(y, 1), y)
    return xp.where(zero, number(y, 0), xp.sqrt(y) if p == 2 else y ** (1 / p))
