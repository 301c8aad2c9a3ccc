#!/usr/bin/env python3
"""GIMP 3: the selection becomes the object in it. A recipe: see README.md."""

import sys

import gi

gi.require_version("Gimp", "3.0")
gi.require_version("Gegl", "0.4")
import editor_client  # noqa: E402
from gi.repository import Gegl, Gimp, GLib  # noqa: E402

PROCEDURE = "trtseg-select-object"


class Select(Gimp.PlugIn):
    def do_query_procedures(self):
        return [PROCEDURE]

    def do_set_i18n(self, name):
        return False

    def do_create_procedure(self, name):
        made = Gimp.ImageProcedure.new(self, name, Gimp.PDBProcType.PLUGIN, self.run, None)
        made.set_image_types("*")
        made.set_menu_label("Select the _object in the selection")
        made.add_menu_path("<Image>/Select/")
        made.set_documentation("Shrinks a rectangle to the object in it", PROCEDURE, name)
        made.set_attribution("trtseg", "trtseg", "2026")
        return made

    def run(self, procedure, run_mode, image, drawables, config, data):
        try:
            self.select(image)
        except editor_client.Failed as error:
            status = Gimp.PDBStatusType.EXECUTION_ERROR
            return procedure.new_return_values(status, GLib.Error(str(error)))
        Gimp.displays_flush()
        return procedure.new_return_values(Gimp.PDBStatusType.SUCCESS, None)

    def select(self, image):
        found = Gimp.Selection.bounds(image)
        if not found.non_empty:
            raise editor_client.Failed("Select a rectangle around the object first.")
        width, height = image.get_width(), image.get_height()
        area = Gegl.Rectangle.new(0, 0, width, height)
        copy = image.duplicate()
        rgb = copy.flatten().get_buffer().get(area, 1.0, "R'G'B' u8", Gegl.AbyssPolicy.NONE)
        copy.delete()
        # bounds end behind the last pixel; the API's pixels are counted at their centres
        box = {
            "type": "box", "x0": found.x1, "y0": found.y1, "x1": found.x2 - 1, "y1": found.y2 - 1,
        }  # fmt: skip
        mask = editor_client.select(width, height, bytes(rgb), [box])
        channel = Gimp.Channel.new(image, "trtseg", width, height, 50.0, Gegl.Color.new("red"))
        image.undo_group_start()
        image.insert_channel(channel, None, 0)
        channel.get_buffer().set(area, "Y u8", mask)
        image.select_item(Gimp.ChannelOps.REPLACE, channel)
        image.remove_channel(channel)
        image.undo_group_end()


if __name__ == "__main__":
    Gimp.main(Select.__gtype__, sys.argv)
