"""Classical interactive segmentation behind the session interface of the models.

Each method is a frozen dataclass whose fields are its parameters; `encode(image)` does what no
click changes, `session(encoded)` answers clicks. What the methods share, since they were made for
strokes and rectangles rather than clicks:

- A click is a stroke of `radius_px`. Where strokes of both kinds overlap, a pixel belongs to the
  nearest click, the newer on a tie.
- The image's border, one pixel wide and without the strokes, helps where a few clicks say too
  little about the background: it belongs to the sample of the background's colours, and while there
  is no negative click, it is the seed that random walker and geodesic matting need.

Parameters that the papers leave open were chosen on a few images of COCO and DAVIS.
"""
