// The keyboard.

export function useKeys(canvas, view, editor, page) {
  const tools = { p: "click", b: "box", s: "brush", l: "lasso" };

  function moveCursor(dx, dy) {
    const { photo } = editor;
    const step = 8 / view.scale;
    const from = editor.cursor ?? { x: (photo.width - 1) / 2, y: (photo.height - 1) / 2 };
    editor.cursor = {
      x: Math.max(0, Math.min(photo.width - 1, from.x + dx * step)),
      y: Math.max(0, Math.min(photo.height - 1, from.y + dy * step)),
    };
    editor.hovered(editor.cursor);
    view.draw();
  }

  function clickCursor(positive) {
    if (!editor.cursor) return moveCursor(0, 0);
    const { x, y } = editor.cursor;
    editor.say({ type: "click", x, y, positive }, [{ x, y, positive }]);
  }

  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input:not([type=range]):not([type=checkbox])") || page.dialogOpen()) return;
    if (!editor.photo) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const command = event.ctrlKey || event.metaKey;
    const onCanvas = event.target === canvas || event.target === document.body;
    let taken = true;
    if (key === "z" && !event.altKey) event.shiftKey ? editor.redo() : editor.undo();
    else if (command && key === "y") editor.redo();
    else if (command || event.altKey) taken = false;
    else if (/^[1-9]$/.test(key)) editor.select(Number(key) - 1);
    else if (key in tools) page.tool(tools[key]);
    else if (key === "m") page.run(editor.nextObject());
    else if (key === "[") editor.step(-1);
    else if (key === "]") editor.step(1);
    else if (key === "t") page.sign(!editor.positive);
    else if (key === "r") editor.reset();
    else if (key === "h") page.compare(true);
    else if (key === "o") page.nextLook();
    else if (key === "e") page.exportMenu(true);
    else if (key === "f" || key === "0") view.fit();
    else if (key === "+" || key === "=") view.zoom(1.25);
    else if (key === "-") view.zoom(0.8);
    else if (key === ",") page.radius(editor.radius - 2);
    else if (key === ".") page.radius(editor.radius + 2);
    else if (key === "?") page.help();
    else if (onCanvas && key === " ") {
      editor.spaced = true;
      canvas.classList.add("pan");
    } else if (onCanvas && key in arrows) {
      const [dx, dy] = arrows[key];
      moveCursor(dx * (event.shiftKey ? 5 : 1), dy * (event.shiftKey ? 5 : 1));
    } else if (onCanvas && key === "Enter") clickCursor(event.shiftKey ? !editor.positive : editor.positive);
    else if (onCanvas && key === "Backspace") clickCursor(!editor.positive);
    else taken = false;
    if (taken) event.preventDefault();
  });

  document.addEventListener("keyup", (event) => {
    if (event.key === "h" || event.key === "H") page.compare(false);
    if (event.key === " ") {
      editor.spaced = false;
      canvas.classList.toggle("pan", editor.tool === "pan");
    }
  });
  window.addEventListener("blur", () => page.compare(false));
}
