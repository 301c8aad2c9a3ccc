"""trtseg in napari: points and rectangles in, labels out."""
