"""Every operation in float64 NumPy, written for clarity: the arbiter between the backends.

Nothing here is shared with the package: formulas come from the papers and from the definition of
bilinear interpolation.
"""

import numpy as np


def distance_map(points, size, limit_px):
    height, width = size
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    best = np.full(size, float(limit_px))
    for y, x in np.asarray(points, np.float64):
        best = np.minimum(best, np.hypot(rows - y, columns - x))
    return best


def distance_transform(mask, limit_px=np.inf):
    """Separable, and quadratic in the width: every column is tried for every pixel."""
    mask = np.asarray(mask) != 0
    height, width = mask.shape
    if not mask.any():
        return np.full(mask.shape, float(limit_px))
    rows = np.arange(height)
    in_column = np.full(mask.shape, np.inf)
    for x in range(width):
        sites = rows[mask[:, x]]
        if len(sites):
            in_column[:, x] = np.abs(rows[:, None] - sites[None, :]).min(1)
    offsets = (np.arange(width)[:, None] - np.arange(width)[None, :]).astype(np.float64) ** 2
    squared = np.stack([(offsets + row[None, :] ** 2).min(1) for row in in_column])
    return np.minimum(np.sqrt(squared), limit_px)


def upsampling_matrix(output, source):
    """[output, source]: how much each output position takes from each source position."""
    matrix = np.zeros((output, source))
    for i in range(output):
        position = max((i + 0.5) * source / output - 0.5, 0.0)
        first = min(int(position), source - 1)
        second = min(first + 1, source - 1)
        weight = position - first
        matrix[i, first] += 1 - weight
        matrix[i, second] += weight
    return matrix


def hypercolumn(levels, size, image=None, image_weight=None, bias=None):
    height, width = size
    total = np.zeros((levels[0].shape[0], height, width))
    for level in levels:
        vertical = upsampling_matrix(height, level.shape[1])
        horizontal = upsampling_matrix(width, level.shape[2])
        total += vertical @ level.astype(np.float64) @ horizontal.T
    if image is not None:
        total += np.einsum("ci,ihw->chw", image_weight.astype(np.float64), image)
    if bias is not None:
        total += bias[:, None, None]
    return total


def add_guidance(base, guidance, weight, slope=0.2):
    x = base + np.einsum("cg,ghw->chw", weight.astype(np.float64), guidance)
    return np.where(x > 0, x, slope * x)


def jaccard(masks, target, positive, negative):
    masks = masks.astype(np.float64)
    valid = target != 255
    truth = (target != 0) & valid
    loss, penalty = [], []
    for mask in masks:
        intersection = np.minimum(mask, truth)[valid].sum()
        union = np.maximum(mask, truth)[valid].sum()
        loss.append(1 - intersection / union if union > 0 else 0.0)
        disobeyed = sum(1 - mask[y, x] for y, x in positive) + sum(mask[y, x] for y, x in negative)
        penalty.append(disobeyed)
    return np.array(loss), np.array(penalty, np.float64)


def jaccard_gradient(masks, target, positive, negative, loss_weight, penalty_weight):
    """From the quotient rule, for masks strictly inside (0, 1)."""
    masks = masks.astype(np.float64)
    valid = target != 255
    truth = (target != 0) & valid
    grad = np.zeros(masks.shape)
    for m, mask in enumerate(masks):
        intersection = np.minimum(mask, truth)[valid].sum()
        union = np.maximum(mask, truth)[valid].sum()
        if union > 0:
            grad[m][truth] = -loss_weight[m] / union
            grad[m][valid & ~truth] = loss_weight[m] * intersection / union**2
        for y, x in positive:
            grad[m, y, x] -= penalty_weight[m]
        for y, x in negative:
            grad[m, y, x] += penalty_weight[m]
    return grad


def compose_mask(probability, size):
    """The upsampled probability; thresholding is the test's."""
    height, width = size
    vertical = upsampling_matrix(height, probability.shape[0])
    horizontal = upsampling_matrix(width, probability.shape[1])
    return vertical @ probability.astype(np.float64) @ horizontal.T


def guided_upsample(values, coarse, guide, epsilon):
    """(the map, its model)."""
    windows = [
        np.lib.stride_tricks.sliding_window_view(np.pad(each.astype(np.float64), 1, "edge"), (3, 3))
        for each in (values, coarse)
    ]
    value, mean = (each.mean((2, 3)) for each in windows)
    covariance = (windows[0] * windows[1]).mean((2, 3)) - value * mean
    slope = covariance / (windows[1].var((2, 3)) + epsilon)
    up, slopes, means = (compose_mask(each, guide.shape) for each in (values, slope, mean))
    return np.clip(up + slopes * (guide - means), 0, 1), np.stack([slope, mean])


def click_maps(points, size, limit_px, sigma_px=None):
    """[4, H, W]; rows of NaN are no points."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    clicks, distances = [], []
    for kind in np.asarray(points, np.float64):
        present = kind[~np.isnan(kind).any(1)]
        distance = distance_map(present, size, limit_px)
        if sigma_px is not None:
            click = np.exp(-(distance**2) / (2 * sigma_px**2))
        else:
            click = np.zeros(size)
            for point in present:
                y, x = np.clip(np.floor(point + 0.5), 0, np.array(size) - 1)
                click[(rows == y) & (columns == x)] = 1
        clicks.append(click)
        distances.append(distance / limit_px)
    return np.stack(clicks + distances)


def shrinking_matrix(output, source):
    """[output, source]: each row averages what lies under an output pixel."""
    matrix = np.zeros((output, source))
    edges = np.arange(output + 1) * source / output
    for i in range(output):
        for j in range(source):
            matrix[i, j] = max(0.0, min(edges[i + 1], j + 1) - max(edges[i], j))
    return matrix / matrix.sum(1, keepdims=True)


def prepare_image(pixels, size, mean, scale, bgr=False):
    """[3, h, w]; pixels [H, W, C], uint8 or uint16, or of 0 .. 1."""
    full = float(np.iinfo(pixels.dtype).max) if pixels.dtype.kind == "u" else 1.0
    values = pixels.astype(np.float64) / full
    alpha = values[..., 3:] if pixels.shape[2] == 4 else np.ones((*pixels.shape[:2], 1))
    colour = np.broadcast_to(values[..., :3], (*pixels.shape[:2], 3)) * alpha
    across = [
        (shrinking_matrix if source > output else upsampling_matrix)(output, source)
        for output, source in zip(size, pixels.shape, strict=False)
    ]

    def resized(image):
        return np.einsum("yj,xi,jic->cyx", *across, image, optimize=True)

    colour, opaque = resized(colour), resized(alpha)
    if bgr:
        colour = colour[::-1]
    mean, scale = (np.array(v, np.float64)[:, None, None] for v in (mean, scale))
    return (colour * 255 + mean * (1 - opaque) - mean) * scale
