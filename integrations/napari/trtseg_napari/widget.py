"""The dock widget: clicks are points of two layers, boxes are rectangles, masks are labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel, QPushButton, QSpinBox, QWidget

from trtseg import Segmenter
from trtseg.serve.prompts import apply
from trtseg.types import Box, Click

if TYPE_CHECKING:
    import napari

OBJECT, BACKGROUND, BOX, MASKS = "object", "background", "box", "masks"


class Clicks(QWidget):
    """Select objects of an image by clicks.

    "Begin" encodes the chosen image and adds four layers: points on the object, points on the
    background, rectangles around it, and the masks, a label an object.
    """

    def __init__(self, napari_viewer: napari.Viewer, segmenter: Segmenter | None = None) -> None:
        super().__init__()
        self._viewer, self._segmenter = napari_viewer, segmenter
        self._image: Image | None = None
        self._encoded: Any = None
        self._session: Any = None
        self._told: list[str] = []  # the layer of each prompt
        self._quiet = False
        self.label = 0
        self.images, self.candidate, self.told = QComboBox(), QSpinBox(), QLabel()
        self.begin, self.undo = QPushButton("Begin"), QPushButton("Undo")
        self.next = QPushButton("Next object")
        self.candidate.setPrefix("candidate ")
        self.told.setWordWrap(True)
        layout = QFormLayout(self)
        layout.addRow("Image", self.images)
        for row in (self.begin, self.candidate, self.undo, self.next, self.told):
            layout.addRow(row)
        self.begin.clicked.connect(self.start)
        self.undo.clicked.connect(self.take_back)
        self.next.clicked.connect(self.next_object)
        self.candidate.valueChanged.connect(self.select)
        self._viewer.layers.events.inserted.connect(self._list_images)
        self._viewer.layers.events.removed.connect(self._list_images)
        self._list_images()
        self._enable()

    def start(self) -> None:
        """Encode the chosen image and begin the first object."""
        layer = next((one for one in self._viewer.layers if one.name == self.images.currentText()),
                     None)  # fmt: skip
        if not isinstance(layer, Image):
            self.told.setText("Open an image first.")
            return
        try:
            if self._segmenter is None:
                self._segmenter = Segmenter.load("lite")
            self._encoded = self._segmenter.encode(np.asarray(layer.data))
        except (TypeError, ValueError, RuntimeError) as error:
            self.told.setText(f"This image cannot be used: {error}")
            return
        self._image, self.label = layer, 0
        add, place = self._viewer, {"scale": layer.scale, "translate": layer.translate}
        for name in (OBJECT, BACKGROUND, BOX, MASKS):
            if name in add.layers:
                add.layers.remove(name)
        add.add_labels(np.zeros(self._encoded.image_size, np.int32), name=MASKS, **place)
        add.add_shapes(name=BOX, face_color="transparent", edge_color="yellow", **place)
        for name, colour in ((BACKGROUND, "red"), (OBJECT, "lime")):
            points = add.add_points(name=name, face_color=colour, size=9, **place)
            points.events.data.connect(self._point_came)
            points.mode = "add"
        add.layers[BOX].events.data.connect(self._box_came)
        self.next_object()

    def next_object(self) -> None:
        """Keep the mask; what comes now is another object."""
        assert self._segmenter is not None
        self._session = self._segmenter.session(self._encoded)
        self._told = []
        self.label += 1
        self._quiet = True
        for name in (OBJECT, BACKGROUND, BOX):
            self._viewer.layers[name].data = []
        self._quiet = False
        self._enable()

    def take_back(self) -> None:
        """Take the last prompt back, its point or rectangle too."""
        name = self._told.pop()
        self._session.undo()
        if name != MASKS:
            self._quiet = True
            layer = self._viewer.layers[name]
            layer.data = layer.data[:-1]
            self._quiet = False
        self._show(self._session.prediction)

    def select(self, number: int) -> None:
        """Show another candidate."""
        if not self._quiet and self._session is not None and self._told:
            self._told.append(MASKS)
            self._show(self._session.select(number - 1))

    def _point_came(self, event: Any) -> None:
        name = event.source.name
        if not self._quiet and str(getattr(event.action, "value", event.action)) == "added":
            y, x = event.source.data[-1]
            self._say(name, Click(float(x), float(y), name == OBJECT))

    def _box_came(self, event: Any) -> None:
        if not self._quiet and str(getattr(event.action, "value", event.action)) == "added":
            corners = np.asarray(event.source.data[-1])
            (y0, x0), (y1, x1) = corners.min(0), corners.max(0)
            self._say(BOX, Box(float(x0), float(y0), float(x1), float(y1)))

    def _say(self, name: str, prompt: Click | Box) -> None:
        try:
            prediction = apply(self._session, prompt)
        except (ValueError, RuntimeError) as error:  # outside of the image: forget the point
            self.told.setText(str(error))
            self._quiet = True
            self._viewer.layers[name].data = self._viewer.layers[name].data[:-1]
            self._quiet = False
            return
        self._told.append(name)
        self._show(prediction)

    def _show(self, prediction: Any) -> None:
        """Write the mask; other objects keep their pixels."""
        labels = self._viewer.layers[MASKS]
        data = labels.data
        data[data == self.label] = 0
        data[(prediction.mask > 0) & (data == 0)] = self.label
        labels.refresh()
        share = np.count_nonzero(prediction.mask) / prediction.mask.size
        self.told.setText(f"{share:.1%} of the image, {prediction.timing.total_ms:.0f} ms")
        self._quiet = True
        self.candidate.setRange(1, max(1, len(prediction.scores)))
        self.candidate.setValue(prediction.selected + 1)
        self._quiet = False
        self._enable()

    def _enable(self) -> None:
        for one in (self.undo, self.candidate):
            one.setEnabled(bool(self._told))
        self.next.setEnabled(self._session is not None)

    def _list_images(self, event: Any = None) -> None:
        names = [one.name for one in self._viewer.layers if isinstance(one, Image)]
        if [self.images.itemText(index) for index in range(self.images.count())] != names:
            self.images.clear()
            self.images.addItems(names)
