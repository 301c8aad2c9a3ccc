// What a click would give, while the pointer hovers: the newest place alone is asked for.

import { previewSocket } from "./api.js";
import { Mask } from "./mask.js";

export class Previews {
  constructor(editor) {
    this.editor = editor;
    this.socket = null;
    this.address = "";
    this.number = 0;
    this.wanted = null; // the newest place
    this.asked = null; // the place that an answer is awaited for
  }

  // Wherever the pointer is; null where it is nowhere.
  hover(place) {
    const { editor } = this;
    this.wanted = editor.previews && place ? place : null;
    if (!this.wanted) {
      if (editor.preview) {
        editor.preview = null;
        editor.changed("preview");
      }
      return;
    }
    this.send();
  }

  send() {
    const { editor } = this;
    if (!this.wanted || this.asked || !editor.active?.answer || editor.pending.length) return;
    const address = `${editor.objectPath(editor.active)}/preview`;
    if (address !== this.address || !this.socket || this.socket.readyState > WebSocket.OPEN) {
      this.connect(address);
    }
    if (this.socket.readyState !== WebSocket.OPEN) return;
    this.asked = { ...this.wanted, id: ++this.number, layer: editor.active };
    this.wanted = null;
    const { id, x, y, positive } = this.asked;
    this.socket.send(JSON.stringify({ id, x, y, positive }));
  }

  connect(address) {
    this.socket?.close();
    this.address = address;
    this.asked = null;
    const socket = (this.socket = previewSocket(address));
    socket.onopen = () => socket === this.socket && this.send();
    socket.onclose = () => {
      if (socket === this.socket) this.asked = null;
    };
    socket.onmessage = ({ data }) => socket === this.socket && this.answered(JSON.parse(data));
  }

  answered(answer) {
    const { editor, asked } = this;
    if (!asked || answer.id !== asked.id) return;
    this.asked = null;
    const stale = asked.layer !== editor.active || editor.pending.length || !editor.previews;
    if (!stale && answer.rle) {
      editor.preview = { ...asked, mask: new Mask(answer.rle) };
      editor.changed("preview");
    }
    this.send();
  }

  // After an answer, what was shown or asked for is of the past.
  forget() {
    this.asked = null;
    if (this.editor.preview) this.editor.preview = null;
  }
}
