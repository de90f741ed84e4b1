// Strokes as a layer for paint programs, and layers of paint programs as a mark.

const LONG_SIDE_PX = 1024; // as many as the server takes of a layer

function canvasOf(width, height) {
  const scale = Math.min(1, LONG_SIDE_PX / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.floor(width * scale));
  canvas.height = Math.max(1, Math.floor(height * scale));
  return canvas;
}

/** Draws strokes: later ones cover earlier ones. */
export function drawMarks(context, marks, scale, alpha = 1) {
  context.lineCap = context.lineJoin = "round";
  context.globalAlpha = alpha;
  for (const mark of marks) {
    if (!mark.points) continue;
    context.strokeStyle = mark.color;
    context.lineWidth = Math.max(1, 2 * mark.radius_px * scale);
    context.beginPath();
    for (const [x, y] of mark.points) context.lineTo(x * scale, y * scale);
    const [x, y] = mark.points[0];
    if (mark.points.length === 1) context.lineTo(x * scale + 0.01, y * scale);
    context.stroke();
  }
  context.globalAlpha = 1;
}

/** The marks as a transparent PNG of the photo's aspect. */
export async function layerOf(marks, width, height) {
  const canvas = canvasOf(width, height), context = canvas.getContext("2d");
  for (const mark of marks) {
    if (mark.png) context.drawImage(await pictureOf(mark), 0, 0, canvas.width, canvas.height);
    else drawMarks(context, [mark], canvas.width / width);
  }
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

async function pictureOf(mark) {
  const bytes = Uint8Array.from(atob(mark.png), (letter) => letter.charCodeAt(0));
  return createImageBitmap(new Blob([bytes], { type: "image/png" }));
}

/** A mark from a picture that was painted elsewhere. Throws where the browser cannot read it. */
export async function markOf(file) {
  const picture = await createImageBitmap(file);
  const canvas = canvasOf(picture.width, picture.height);
  canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
  const png = canvas.toDataURL("image/png").split(",")[1];
  return { png, width_px: picture.width, height_px: picture.height, name: file.name.slice(0, 400) };
}
