"""The only tolerances of the tests of native operations, and why each is what it is.

A pair (rtol, atol), for numpy.testing.assert_allclose against `reference.py` in float64.
"""

import numpy as np

EPS32 = 2.0**-24  # half a unit in the last place, relative
EPS16 = 2.0**-11

# Inputs are exact in both storage types, sums are float32 and results are rounded once to storage:
# the storage type's rounding dominates for float16.
STORAGE = {np.dtype(np.float32): 0.0, np.dtype(np.float16): EPS16}

# One subtraction of coordinates below 2^10, two squares, one sum, one root: a few roundings, over a
# limit of at least 1; the exponent's own error, and two units in the last place of its power.
CLICK_MAPS = (1e-5, 2e-6)

# Sums of weights and values of up to 255, some 10^4 of them in float32, over 255 at the largest;
# a position within 2^15 pixels is known to 2^-9.
PREPARE_IMAGE = (1e-4, 1e-4)

# Squares are integers and the root is correctly rounded: only the comparison in float32 remains.
DISTANCE_TRANSFORM = (EPS32, 0.0)

# A position in a map is computed in float32 with three roundings; the widest map of the tests has
# 1281 columns: 1281 * 3 * EPS32 = 2e-4 of a pixel, times a difference of up to 6 between neighbours
# that are normally distributed.
BILINEAR = (1e-5, 1e-3)

# Of nine values within [0, 1] the sums are known to 9 * EPS32, the products' relative to an epsilon
# of at least 1e-3: 1e-3 of the slope, which is at most 1 / (2 sqrt(epsilon)) = 16; and BILINEAR.
GUIDED_UPSAMPLE = (1e-3, 2e-3)

# A sum of at most six products of order 1.
GUIDANCE = (1e-6, 2e-6)

# Partial sums of 32 numbers in float32, then in double on the CPU; shuffles and a tree on the GPU.
# All numbers are positive, so the error is relative.
JACCARD = (2e-5, 1e-6)
JACCARD_GRADIENT = (2e-5, 1e-9)
# A clicked pixel's gradient is rounded once more for each of up to five clicks on it.
JACCARD_GRADIENT_ROUNDINGS = 6

# A probability this close to the threshold may fall on either side: BILINEAR for maps of at most
# 160 columns and values within [0, 1].
THRESHOLD_BAND = 2e-4


def with_storage(tolerance, dtype, scale=1.0, roundings=1):
    """A tolerance for results of magnitude up to `scale`, rounded to `dtype` so many times."""
    rtol, atol = tolerance
    eps = STORAGE[np.dtype(dtype)]
    # Below 2^-14 a float16 is spaced evenly by 2^-24, whatever its magnitude.
    return {"rtol": rtol + eps * roundings, "atol": atol * scale + (2.0**-24 if eps else 0.0)}
