"""Krita: the selection becomes the object in it. A recipe: see README.md."""

from krita import Extension, Krita, Selection

from . import editor_client


class Select(Extension):
    def setup(self):
        pass

    def createActions(self, window):
        action = window.createAction("trtseg_select", "Select the object in the selection", "tools")
        action.triggered.connect(self.run)

    def run(self):
        try:
            self.select(Krita.instance().activeDocument())
        except editor_client.Failed as error:
            view = Krita.instance().activeWindow().activeView()
            view.showFloatingMessage(str(error), Krita.instance().icon("warning"), 6000, 1)

    def select(self, document):
        before = document.selection() if document is not None else None
        if before is None:
            raise editor_client.Failed("Select a rectangle around the object first.")
        if (document.colorModel(), document.colorDepth()) != ("RGBA", "U8"):
            raise editor_client.Failed("This works on images of 8 bits in RGB.")
        width, height = document.width(), document.height()
        bgra = bytes(document.pixelData(0, 0, width, height))
        rgb = bytearray(3 * width * height)
        for place, channel in enumerate((2, 1, 0)):
            rgb[place::3] = bgra[channel::4]
        left, top = before.x(), before.y()
        box = {
            "type": "box", "x0": left, "y0": top,
            "x1": left + before.width() - 1, "y1": top + before.height() - 1,
        }  # fmt: skip
        mask = editor_client.select(width, height, bytes(rgb), [box])
        after = Selection()
        after.select(0, 0, width, height, 0)
        after.setPixelData(mask, 0, 0, width, height)
        document.setSelection(after)


Krita.instance().addExtension(Select(Krita.instance()))
