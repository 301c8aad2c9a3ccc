"""A bundle's network as two ONNX graphs with Segment Anything's names.

The encoder takes an image as it is; the decoder takes clicks, a box and a mask in Segment
Anything's frames and holds all that lies between: the guidance maps, f, g, the frames' geometry.
Annotation tools and browser demos that load Segment Anything's graphs load these.

Both are traced from the torch network; what torch cannot trace, sizes that depend on values, is
joined to them as a few ONNX nodes.
"""

from __future__ import annotations

import math

import onnx
import torch
from onnx import compose, parser
from torch import Tensor, nn
from torch.nn import functional as F

from trtseg.bundle import Bundle
from trtseg.errors import BundleError
from trtseg.export.graphs import store_weights_in_half, traced
from trtseg.nn.bundle_weights import load_network
from trtseg.nn.layers.guidance import PADDING, guidance_maps
from trtseg.nn.manifest import MULTIPLE_PX
from trtseg.nn.network import LatentDiversity
from trtseg.runtime.region import REACH
from trtseg.sam.predictor import BACKGROUND, BOTTOM_RIGHT, FOREGROUND, MULTIMASKS, TOP_LEFT
from trtseg.sam.transforms import IMAGE_PX, MASK_PX

EXAMPLE_SIZE = (256, 320)
SMALLEST = 1e-7  # probabilities nearer to 0 or 1 have no useful logit in float32
INPUTS = ("image_embeddings", "point_coords", "point_labels", "mask_input", "has_mask_input",
          "orig_im_size")  # fmt: skip

# The working size of `trtseg.runtime.image.working_size`, then (pixel - mean) * scale.
PREPARE = """
<ir_version: 10, opset_import: ["": {opset}]>
prepare (float[height, width, 3] image) => (float[1, 3, h, w] prepared)
<int64[1] zero = {{0}}, int64[1] two = {{2}}, int64[2] planes = {{1, 3}}, float one = {{1}},
 float half = {{0.5}}, float long_side = {{{long_side}}}, float multiple = {{{multiple}}},
 float[1, 3, 1, 1] mean = {{{mean}}}, float[1, 3, 1, 1] scale = {{{scale}}}> {{
    shape = Shape (image)
    sides = Slice (shape, zero, two)
    lengths = Cast <to = 1> (sides)
    longest = ReduceMax <keepdims = 0> (lengths)
    scaled = Mul (lengths, long_side)
    exact = Div (scaled, longest)
    cells = Div (exact, multiple)
    shifted = Add (cells, half)
    whole = Floor (shifted)
    counted = Max (whole, one)
    working = Mul (counted, multiple)
    integers = Cast <to = 7> (working)
    sizes = Concat <axis = 0> (planes, integers)
    channels = Transpose <perm = [2, 0, 1]> (image)
    batch = Unsqueeze (channels, zero)
    resized = Resize <mode = "linear", antialias = 1> (batch, , , sizes)
    centred = Sub (resized, mean)
    prepared = Mul (centred, scale)
}}
"""

# Masks are cut from interpolated probabilities, as the runtime does, and given as logits.
ENLARGE = """
<ir_version: 10, opset_import: ["": {opset}]>
enlarge (float[1, {masks}, h, w] probability, float[2] orig_im_size)
    => (float[1, {masks}, H, W] masks)
<int64[2] planes = {{1, {masks}}}, float low = {{{low}}}, float high = {{{high}}},
 float one = {{1}}, float offset = {{{offset}}}> {{
    integers = Cast <to = 7> (orig_im_size)
    sizes = Concat <axis = 0> (planes, integers)
    large = Resize <mode = "linear"> (probability, , , sizes)
    clipped = Clip (large, low, high)
    rest = Sub (one, clipped)
    odds = Div (clipped, rest)
    logits = Log (odds)
    masks = Sub (logits, offset)
}}
"""


class Packing:
    """The maps that a click reads as one tensor: all folded to the grid of the coarsest.

    A map that is r times finer has its r x r neighbours side by side as channels.
    """

    def __init__(self, network: LatentDiversity) -> None:
        config = network.config
        self.base_stride = config.base_stride
        self.with_image = "image" in config.select_inputs and network.select is not None
        with torch.no_grad():
            maps = self._all(network, torch.zeros(1, 3, *EXAMPLE_SIZE))
        coarsest = min(each.shape[2] for each in maps)
        self.folds = [each.shape[2] // coarsest for each in maps]
        self.channels = [
            each.shape[1] * fold**2 for each, fold in zip(maps, self.folds, strict=True)
        ]
        self.stride = EXAMPLE_SIZE[0] // coarsest

    def pack(self, network: LatentDiversity, image: Tensor) -> Tensor:
        """[1, K, h / stride, w / stride] of a normalised image [1, 3, h, w]."""
        folded = [
            F.pixel_unshuffle(each, fold) if fold > 1 else each
            for each, fold in zip(self._all(network, image), self.folds, strict=True)
        ]
        return torch.cat(folded, dim=1)

    def unpack(self, embedding: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """(what `encode` gave; the image on f's grid, where g reads it)."""
        maps = [
            F.pixel_shuffle(each, fold) if fold > 1 else each
            for each, fold in zip(
                embedding.split(self.channels, dim=1), self.folds, strict=True
            )
        ]
        image = maps.pop() if self.with_image else None
        return maps, image

    def _all(self, network: LatentDiversity, image: Tensor) -> tuple[Tensor, ...]:
        maps = tuple(network.encode(image))
        return (*maps, F.avg_pool2d(image, self.base_stride)) if self.with_image else maps


class _Encoder(nn.Module):
    """Normalised image [1, 3, h, w] -> image_embeddings."""

    def __init__(self, network: LatentDiversity, packing: Packing) -> None:
        super().__init__()
        self.network, self.packing = network, packing

    def forward(self, image: Tensor) -> Tensor:
        return self.packing.pack(self.network, image)


class _Decoder(nn.Module):
    """Segment Anything's decoder inputs -> probability on the grid, scores, low-resolution logits.

    The best of the model's hypotheses come first, at most three.
    """

    def __init__(self, network: LatentDiversity, packing: Packing, threshold: float) -> None:
        super().__init__()
        self.network, self.packing = network, packing
        self.count = min(MULTIMASKS, network.config.candidates)
        self.offset = math.log(threshold / (1 - threshold))

    def forward(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        has_mask_input: Tensor,
        orig_im_size: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        config = self.network.config
        base, image = self.packing.unpack(image_embeddings)
        finer = self.packing.stride // config.base_stride
        grid = image_embeddings.shape[2] * finer, image_embeddings.shape[3] * finer
        frame = torch.floor(orig_im_size * (IMAGE_PX / orig_im_size.max()) + 0.5)
        points = point_coords.flip(2) * (orig_im_size / frame)  # (y, x) in image pixels
        # in cells: of the image's length, from its border
        in_cells = [
            (points[..., axis] + 0.5) / orig_im_size[axis] * grid[axis] for axis in (0, 1)
        ]
        is_click = (point_labels == FOREGROUND) | (point_labels == BACKGROUND)
        labels = torch.where(is_click, point_labels, torch.full_like(point_labels, PADDING))
        # pixel centres on pixel centres, in working pixels
        position = [each * config.base_stride - 0.5 for each in in_cells]
        clicks = torch.stack([*position, labels], dim=2)
        region = _region_map(torch.stack(in_cells, dim=2) - 0.5, point_labels, grid)
        to_grid, to_mask = [], []
        for axis in (0, 1):
            cells, side = grid[axis], frame[axis]
            at = (torch.arange(cells) + 0.5) / cells * side * (MASK_PX / IMAGE_PX) - 0.5
            to_grid.append(_interpolation(at, MASK_PX))
            at = (torch.arange(MASK_PX) + 0.5) * (IMAGE_PX / MASK_PX) / side * cells - 0.5
            to_mask.append(_interpolation(at, cells))
        carried = to_grid[0] @ mask_input[:, 0] @ to_grid[1].T
        previous = torch.sigmoid(carried + self.offset) * has_mask_input
        guidance = guidance_maps(clicks, grid, config, previous, region)
        masks, features = self.network.masks(base, guidance)
        scores = self.network.scores(masks, guidance, features, image)
        order = scores[0].topk(self.count).indices
        best = masks[:, order]
        logits = torch.logit(best, SMALLEST) - self.offset
        return best, scores[:, order], to_mask[0] @ logits @ to_mask[1].T


def _region_map(points: Tensor, labels: Tensor, grid: tuple[int, int]) -> Tensor:
    """`trtseg.runtime.region.region_map` of a box, [1, H, W]; zeros without one.

    Args:
        points: [1, P, 2], (y, x) in cells.
        labels: [1, P]; two of them say which points are the box's corners.
        grid: (height, width).
    """
    corners = [(labels == kind).float() for kind in (TOP_LEFT, BOTTOM_RIGHT)]
    low, high = ((points * each[..., None]).sum((0, 1)) for each in corners)
    there = corners[0].max() * corners[1].max()
    beyond, depths = [], []
    for axis in (0, 1):
        first, last = torch.floor(low[axis] + 0.5), torch.floor(high[axis] + 0.5)
        at = torch.arange(grid[axis])
        beyond.append(torch.maximum(first - at, at - last).clamp(min=0))
        # no boundary where the box reaches the border: nothing lies beyond
        far = torch.full_like(first, 2 * REACH)
        before = torch.where(first > 0, at - first + 1, far)
        after = torch.where(last < grid[axis] - 1, last - at + 1, far)
        depths.append(torch.minimum(before, after))
    away = (beyond[0].square()[:, None] + beyond[1].square()).sqrt()
    depth = torch.minimum(depths[0][:, None], depths[1])
    signed = torch.where(away > 0, 0.5 - away, depth - 0.5)
    return (signed / REACH).clamp(-1, 1)[None] * there


def _interpolation(positions: Tensor, cells: int) -> Tensor:
    """Weights [P, cells] of linear interpolation between cell centres, constant beyond them."""
    inside = positions.clamp(0, cells - 1)
    return (1 - (inside[:, None] - torch.arange(cells)).abs()).clamp(min=0)


def sam_graphs(bundle: Bundle) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """(encoder, decoder) of a bundle's network, in FP32.

    Encoder: `image` float32 [H, W, 3], RGB, 0 to 255, of any size -> `image_embeddings`
    [1, K, h, w].

    Decoder: `image_embeddings`; `point_coords` float32 [1, N, 2], (x, y) in the frame whose longer
    side is 1024; `point_labels` float32 [1, N], 1 and 0, 2 and 3 for the corners of one box, -1
    for padding; `mask_input` float32 [1, 1, 256, 256], `has_mask_input` float32 [1], 0 or 1;
    `orig_im_size` float32 [2], the image's height and width -> `masks` float32 [1, C, H, W]
    logits at that size, `iou_predictions` [1, C], `low_res_masks` [1, C, 256, 256], the best
    first. It answers all clicks in one pass: give the mask of the clicks before with a new one.

    Raises:
        BundleError: the bundle holds no network of this package, or one that takes no boxes.
    """
    network = load_network(bundle)
    if not network.config.region:
        raise BundleError(
            f"{bundle.name}: expected a model that takes boxes, as Segment Anything does "
            '("region" in its network\'s configuration), got one that does not'
        )
    packing, manifest = Packing(network), bundle.manifest
    # ONNX keeps none of the bounds: a side of one cell works, too
    rows, columns = torch.export.Dim("rows", min=2), torch.export.Dim("columns", min=2)
    sides = {2: MULTIPLE_PX * rows, 3: MULTIPLE_PX * columns}
    points = torch.export.Dim("points", min=2, max=4096)
    encoder = traced(
        _Encoder(network, packing).eval(),
        (torch.zeros(1, 3, *EXAMPLE_SIZE),),
        ("prepared",),
        ("image_embeddings",),
        (sides,),
    )
    store_weights_in_half(encoder)
    cells = MULTIPLE_PX // packing.stride
    folded = {2: cells * rows, 3: cells * columns}
    decoder = traced(
        _Decoder(network, packing, manifest.threshold).eval(),
        _example(packing),
        INPUTS,
        ("probability", "iou_predictions", "low_res_masks"),
        (folded, {1: points}, {1: points}, None, None, None),
    )
    prepare = PREPARE.format(
        opset=encoder.opset_import[0].version,
        long_side=float(manifest.long_side_px),
        multiple=float(manifest.multiple_px),
        mean=", ".join(repr(float(value)) for value in manifest.mean),
        scale=", ".join(repr(float(value)) for value in manifest.scale),
    )
    enlarge = ENLARGE.format(
        opset=decoder.opset_import[0].version,
        masks=min(MULTIMASKS, network.config.candidates),
        low=SMALLEST,
        high=1 - SMALLEST,
        offset=math.log(manifest.threshold / (1 - manifest.threshold)),
    )
    _join(encoder, parser.parse_model(prepare).graph, first=True)
    _join(decoder, parser.parse_model(enlarge).graph)
    encoder.graph.output[0].CopyFrom(decoder.graph.input[0])  # sides by the same names
    for model in (encoder, decoder):
        onnx.checker.check_model(model, full_check=True)
    return encoder, decoder


def _example(packing: Packing) -> tuple[Tensor, ...]:
    height, width = (side // packing.stride for side in EXAMPLE_SIZE)
    return (
        torch.zeros(1, sum(packing.channels), height, width),
        torch.tensor([[[300.0, 200.0], [0.0, 0.0]]]),
        torch.tensor([[1.0, -1.0]]),
        torch.zeros(1, 1, MASK_PX, MASK_PX),
        torch.zeros(1),
        torch.tensor([480.0, 600.0]),
    )


def _join(model: onnx.ModelProto, part: onnx.GraphProto, *, first: bool = False) -> None:
    """Put a few nodes before a graph, or after it; what it gives and takes has the same name."""
    part = compose.add_prefix_graph(
        part, "sam/", rename_inputs=False, rename_outputs=False
    )
    graph = model.graph
    nodes = [*part.node, *graph.node] if first else [*graph.node, *part.node]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(part.initializer)
    ends, given = (graph.input, part.input) if first else (graph.output, part.output)
    ends[0].CopyFrom(given[0])  # the image, or the masks
