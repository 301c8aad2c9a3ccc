"""The backends under test, all with one interface: NumPy arrays in, NumPy arrays out.

`Raw` drives a raw native module (`trtseg._cpu`, `trtseg._cuda`, or the emulated `_cuda`, which
takes NumPy arrays); `Torch` drives `trtseg.ops` on tensors, and `trtseg.nn.jaccard`.
"""

import numpy as np


class Raw:
    def __init__(self, name, module, to_device=lambda array: array, to_host=lambda array: array):
        self.name = name
        self.module = module
        self._device = to_device
        self._host = to_host

    def _in(self, array):
        return None if array is None else self._device(array)

    def _out(self, shape, dtype):
        """Filled with what no operation returns, so that an unwritten element shows."""
        return self._device(np.full(shape, 77, dtype))

    def _scratch(self, size):
        return self._device(np.full(max(size, 16), 171, np.uint8))

    def distance_transform(self, mask, limit_px=np.inf):
        out = self._out(mask.shape, np.float32)
        scratch = self._scratch(self.module.distance_transform_scratch(*mask.shape))
        self.module.distance_transform(self._in(mask), out, scratch, limit_px)
        return self._host(out)

    def _maps(self, array):
        """Maps of many channels, in the layout that the networks have them in."""
        return self._in(array)

    def hypercolumn(self, levels, size, image=None, image_weight=None, bias=None):
        out = self._maps(np.full((levels[0].shape[0], *size), 77, levels[0].dtype))
        self.module.hypercolumn(
            [self._maps(level) for level in levels],
            self._in(image),
            self._in(image_weight),
            self._in(bias),
            out,
        )
        return self._host(out)

    def add_guidance(self, base, guidance, weight, slope=0.2):
        out = self._maps(np.full(base.shape, 77, base.dtype))
        self.module.add_guidance(
            self._maps(base), self._in(guidance), self._in(weight), out, slope
        )
        return self._host(out)

    def jaccard(self, masks, target, positive, negative, weights=None):
        """(loss, penalty), and the gradient for (loss weights, penalty weights) where given."""
        count = masks.shape[0]
        loss, penalty = self._out(count, np.float32), self._out(count, np.float32)
        sums = self._out((count, 2), np.float32)
        target, positive, negative = map(self._in, (target, positive, negative))
        scratch = self._scratch(self.module.jaccard_scratch(*masks.shape))
        self.module.jaccard(
            self._in(masks), target, positive, negative, loss, penalty, sums, scratch
        )
        if weights is None:
            return self._host(loss), self._host(penalty)
        grad = self._out(masks.shape, masks.dtype)
        self.module.jaccard_gradient(
            target, positive, negative, sums, self._in(weights[0]), self._in(weights[1]), grad
        )
        return self._host(loss), self._host(penalty), self._host(grad)

    def compose_mask(self, probability, size, threshold=0.5):
        """(mask, probability)."""
        out, upsampled = self._out(size, np.uint8), self._out(size, np.float32)
        self.module.compose_mask(self._in(probability), threshold, out, upsampled)
        return self._host(out), self._host(upsampled)

    def guided_upsample(self, values, coarse, guide, epsilon):
        """(the map, its model)."""
        out = self._out(guide.shape, np.float32)
        model = self._out((2, *values.shape), np.float32)
        self.module.guided_upsample(*map(self._in, (values, coarse, guide)), epsilon, model, out)
        return self._host(out), self._host(model)

    def click_maps(self, points, size, limit_px, sigma_px=None, dtype=np.float32):
        out = self._out((4, *size), dtype)
        self.module.click_maps(self._in(points), out, limit_px, sigma_px)
        return self._host(out)

    def best_map(self, maps, scores):
        out = self._out(maps.shape[1:], maps.dtype)
        self.module.best_map(self._in(maps), self._in(scores), out)
        return self._host(out)

    def prepare_image(self, pixels, size, mean, scale, bgr=False, dtype=np.float32):
        out = self._out((3, *size), dtype)
        self.module.prepare_image(self._in(pixels), mean, scale, bgr, out)
        return self._host(out)


class ChannelsLast(Raw):
    """Maps of many channels lie channels-last, as the networks have them on a GPU."""

    def _maps(self, array):
        pixels = self._device(np.ascontiguousarray(array.transpose(1, 2, 0)))
        axes = 2, 0, 1
        return pixels.permute(axes) if hasattr(pixels, "permute") else pixels.transpose(axes)


class Torch:
    name = "torch"

    def __init__(self):
        import torch

        from trtseg import ops
        from trtseg.nn.jaccard import jaccard

        self._torch = torch
        self._ops = ops
        self._jaccard = jaccard

    def _in(self, array, grad=False):
        if array is None:
            return None
        return self._torch.from_numpy(array.copy()).requires_grad_(grad)

    def distance_transform(self, mask, limit_px=np.inf):
        return self._ops.distance_transform(self._in(mask), limit_px=limit_px).numpy()

    def hypercolumn(self, levels, size, image=None, image_weight=None, bias=None):
        return self._ops.hypercolumn(
            [self._in(level) for level in levels],
            size,
            image=self._in(image),
            image_weight=self._in(image_weight),
            bias=self._in(bias),
        ).numpy()

    def add_guidance(self, base, guidance, weight, slope=0.2):
        return self._ops.add_guidance(
            *map(self._in, (base, guidance, weight)), slope=slope
        ).numpy()

    def jaccard(self, masks, target, positive, negative, weights=None):
        masks = self._in(masks, grad=weights is not None)
        loss, penalty = self._jaccard(masks, *map(self._in, (target, positive, negative)))
        values = loss.detach().numpy(), penalty.detach().numpy()
        if weights is None:
            return values
        self._torch.autograd.backward([loss, penalty], [self._in(weight) for weight in weights])
        return (*values, masks.grad.numpy())

    def compose_mask(self, probability, size, threshold=0.5):
        mask, upsampled = self._ops.compose_mask(
            self._in(probability), size, threshold=threshold, return_probability=True
        )
        return mask.numpy(), upsampled.numpy()

    def guided_upsample(self, values, coarse, guide, epsilon):
        model = self._in(np.full((2, *values.shape), 77, np.float32))
        out = self._ops.guided_upsample(
            *map(self._in, (values, coarse, guide)), epsilon=epsilon, model=model
        )
        return out.numpy(), model.numpy()

    def click_maps(self, points, size, limit_px, sigma_px=None, dtype=np.float32):
        out = self._in(np.full((4, *size), 77, dtype))
        return self._ops.click_maps(
            self._in(points), out, limit_px=limit_px, sigma_px=sigma_px
        ).numpy()

    def best_map(self, maps, scores):
        out = self._in(np.full(maps.shape[1:], 77, maps.dtype))
        return self._ops.best_map(self._in(maps), self._in(scores), out).numpy()

    def prepare_image(self, pixels, size, mean, scale, bgr=False, dtype=np.float32):
        out = self._in(np.full((3, *size), 77, dtype))
        return self._ops.prepare_image(
            self._in(pixels), out, mean=mean, scale=scale, bgr=bgr
        ).numpy()
