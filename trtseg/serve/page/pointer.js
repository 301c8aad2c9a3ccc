// Mouse, pen and touch on the canvas.

const LONG_TOUCH_MS = 450, STILL_PX = 6;

export function usePointer(canvas, view, editor, previews) {
  const touches = new Map();
  let drag = null; // { kind: "pan" | "press" | "box" | "brush" | "lasso", ... }
  let held = null; // the timer of a long touch
  let pinch = null;

  const place = (event) => {
    const { left, top } = canvas.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  };
  const limited = ({ x, y }) => ({
    x: Math.max(0, Math.min(editor.photo.width - 1, x)),
    y: Math.max(0, Math.min(editor.photo.height - 1, y)),
  });
  const sign = (event) => {
    const other = event.button === 2 || (event.buttons & 2) !== 0 || event.altKey;
    return other ? !editor.positive : editor.positive;
  };

  function click(at, positive) {
    const point = view.toImage(at.x, at.y);
    if (!view.inside(point)) return;
    const prompt = { type: "click", ...limited(point), positive };
    editor.say(prompt, [{ x: prompt.x, y: prompt.y, positive }]);
  }

  function finish() {
    const { kind, points, positive, radius } = editor.gesture;
    editor.gesture = null;
    const inside = points.map(limited);
    if (kind === "box") {
      const [a, b] = [inside[0], inside[inside.length - 1]];
      const box = { x0: Math.min(a.x, b.x), y0: Math.min(a.y, b.y), x1: Math.max(a.x, b.x), y1: Math.max(a.y, b.y) };
      if (box.x1 - box.x0 >= 1 && box.y1 - box.y0 >= 1) editor.say({ type: "box", ...box });
    } else {
      const line = thinned(inside).map(({ x, y }) => [x, y]);
      if (kind === "brush") editor.say({ type: "stroke", points: line, positive, radius_px: radius });
      else if (line.length >= 3) editor.say({ type: "lasso", points: line });
    }
    view.draw();
  }

  canvas.addEventListener("blur", () => canvas.classList.remove("pointed"));
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());

  canvas.addEventListener("pointerdown", (event) => {
    if (!editor.photo || event.button > 2) return;
    event.preventDefault();
    canvas.classList.add("pointed"); // who points needs no ring around the photo
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    editor.cursor = null;
    const at = place(event);
    if (event.pointerType === "touch") {
      touches.set(event.pointerId, at);
      if (touches.size === 2) {
        clearTimeout(held);
        drag = editor.gesture = null;
        pinch = span(touches);
        return;
      }
    }
    if (drag || pinch) return;
    const image = view.toImage(at.x, at.y);
    if (event.button === 1 || editor.spaced || editor.tool === "pan") {
      drag = { kind: "pan", at };
      canvas.classList.add("panning");
      return;
    }
    const kind = event.shiftKey ? "box" : editor.tool;
    const positive = sign(event);
    if (kind === "click") {
      drag = { kind: "press", at, positive };
      if (event.pointerType === "touch") {
        held = setTimeout(() => {
          drag = null;
          navigator.vibrate?.(15);
          click(at, !positive);
        }, LONG_TOUCH_MS);
      }
      return;
    }
    drag = { kind, at };
    previews.hover(null);
    editor.gesture = { kind, points: [image], positive, radius: editor.radius / view.scale };
    view.draw();
  });

  canvas.addEventListener("pointermove", (event) => {
    if (!editor.photo) return;
    const at = place(event);
    if (touches.has(event.pointerId)) touches.set(event.pointerId, at);
    if (pinch && touches.size === 2) {
      const now = span(touches);
      view.pan(now.x - pinch.x, now.y - pinch.y);
      view.zoom(now.length / pinch.length, now.x, now.y);
      pinch = now;
      return;
    }
    const image = view.toImage(at.x, at.y);
    editor.hovered(view.inside(image) ? image : null);
    if (!drag) {
      const hovers = event.pointerType !== "touch" && editor.tool === "click" && view.inside(image);
      previews.hover(hovers ? { ...limited(image), positive: sign(event) } : null);
    } else if (drag.kind === "pan") {
      view.pan(at.x - drag.at.x, at.y - drag.at.y);
      drag.at = at;
    } else if (drag.kind === "press") {
      if (event.pointerType === "touch" && Math.hypot(at.x - drag.at.x, at.y - drag.at.y) > STILL_PX) {
        clearTimeout(held);
        drag = { kind: "pan", at };
      }
    } else if (editor.gesture) {
      if (drag.kind === "box") editor.gesture.points[1] = image;
      else for (const one of event.getCoalescedEvents?.() ?? [event]) {
        const { x, y } = place(one);
        editor.gesture.points.push(view.toImage(x, y));
      }
      view.draw();
    }
  });

  const end = (event, done) => {
    touches.delete(event.pointerId);
    clearTimeout(held);
    canvas.classList.remove("panning");
    if (pinch) {
      if (touches.size < 2) pinch = null;
      if (touches.size) drag = { kind: "none" };
      else drag = null;
      return;
    }
    const ended = drag;
    drag = null;
    if (!ended) return;
    if (ended.kind === "press" && done) click(ended.at, ended.positive);
    else if (editor.gesture) done ? finish() : (editor.gesture = null);
    view.draw();
  };
  canvas.addEventListener("pointerup", (event) => end(event, true));
  canvas.addEventListener("pointercancel", (event) => end(event, false));
  canvas.addEventListener("pointerleave", () => {
    previews.hover(null);
    editor.hovered(null);
  });

  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const { x, y } = place(event);
    const lines = event.deltaMode === 1 ? 30 : 1;
    view.zoom(Math.exp(-Math.max(-240, Math.min(240, event.deltaY * lines)) * 0.0022), x, y);
  }, { passive: false });
}

function span(touches) {
  const [a, b] = [...touches.values()];
  return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, length: Math.max(1, Math.hypot(a.x - b.x, a.y - b.y)) };
}

// At most 400 points, and none twice.
function thinned(points) {
  const apart = points.filter((point, i) => !i || Math.hypot(point.x - points[i - 1].x, point.y - points[i - 1].y) > 0.2);
  const step = Math.ceil(apart.length / 400);
  return apart.filter((_, i) => i % step === 0 || i === apart.length - 1);
}
