"""The sizes and types that every operation is tested at."""

import numpy as np

SHAPES = [(1, 1), (7, 5), (33, 65), (480, 640)]
DTYPES = [np.dtype(np.float32), np.dtype(np.float16)]


def ids(value):
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
