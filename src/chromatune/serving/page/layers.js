// Strokes as a layer for paint programs, and layers of paint programs as a mark.

const LONG_SIDE_PX = 1024; // as many as the server takes of a layer

function canvasOf(width, height) {
  const scale = Math.min(1, LONG_SIDE_PX / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.floor(width * scale));
  canvas.height = Math.max(1, Math.floor(height * scale));
  return canvas;
}

/** What a stroke is drawn with: its color, or of its source what lies there; gray until that is there. */
function styleOf(context, { color, source }, scale) {
  if (!source?.canvas) return color ?? "#808080";
  const { canvas, width, height } = source, pattern = context.createPattern(canvas, "no-repeat");
  pattern.setTransform(new DOMMatrix().scale((scale * width) / canvas.width, (scale * height) / canvas.height));
  return pattern;
}

/** Draws strokes of a color, or of a source: a picture of the whole photo. Later ones cover earlier ones. */
export function drawMarks(context, marks, scale, alpha = 1) {
  context.lineCap = context.lineJoin = "round";
  context.globalAlpha = alpha;
  for (const mark of marks) {
    if (!mark.points) continue;
    context.strokeStyle = styleOf(context, mark, scale);
    context.lineWidth = Math.max(1, 2 * mark.radius_px * scale);
    context.beginPath();
    for (const [x, y] of mark.points) context.lineTo(x * scale, y * scale);
    const [x, y] = mark.points[0];
    if (mark.points.length === 1) context.lineTo(x * scale + 0.01, y * scale);
    context.stroke();
  }
  context.globalAlpha = 1;
}

async function canvasWith(marks, width, height) {
  const canvas = canvasOf(width, height), context = canvas.getContext("2d");
  for (const mark of marks) {
    if (mark.png) context.drawImage(await pictureOf(mark), 0, 0, canvas.width, canvas.height);
    else drawMarks(context, [mark], canvas.width / width);
  }
  return canvas;
}

/** The marks as a transparent PNG of the photo's aspect. */
export async function layerOf(marks, width, height) {
  const canvas = await canvasWith(marks, width, height);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

const sent = new WeakMap(); // marks ⇒ what the server gets of them

/** The marks as the server takes them: from the first to the last stroke of a source they are one layer. */
export function toSend(marks, width, height) {
  if (!sent.has(marks)) sent.set(marks, withLayer(marks, width, height));
  return sent.get(marks);
}

async function withLayer(marks, width, height) {
  const first = marks.findIndex((mark) => mark.source), end = marks.findLastIndex((mark) => mark.source) + 1;
  if (first < 0) return marks;
  const canvas = await canvasWith(marks.slice(first, end), width, height);
  return [...marks.slice(0, first), layerMark(canvas, width, height, "strokes from a version"), ...marks.slice(end)];
}

function layerMark(canvas, width, height, name) {
  return { png: canvas.toDataURL("image/png").split(",")[1], width_px: width, height_px: height, name };
}

/** A picture by its address, on a canvas; nothing of it is transparent. */
export async function pictureAt(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
  canvas.width = image.naturalWidth;
  canvas.height = image.naturalHeight;
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let at = 3; at < pixels.data.length; at += 4) pixels.data[at] = 255;
  context.putImageData(pixels, 0, 0);
  return canvas;
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
  return layerMark(canvas, picture.width, picture.height, file.name.slice(0, 400));
}
