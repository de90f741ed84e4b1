// A ZIP file of files that are compressed already (APPNOTE.TXT, method 0).

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n >>> 0;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}

/** A Blob of `[{name, blob}]`; a name that comes twice gets a number. */
export async function zip(files) {
  const pieces = [], directory = [], taken = new Set();
  let offset = 0;
  for (const [index, { name: wanted, blob }] of files.entries()) {
    const name = freeName(wanted, taken, index + 1);
    taken.add(name.toLowerCase());
    const label = new TextEncoder().encode(name), bytes = new Uint8Array(await blob.arrayBuffer());
    // version, UTF-8 names, stored, 1980-01-01 00:00, CRC, sizes, length of the name, no extra
    const common = fields([20, 2], [0x800, 2], [0, 2], [0, 2], [33, 2], [crc32(bytes), 4], [bytes.length, 4],
      [bytes.length, 4], [label.length, 2], [0, 2]);
    const local = [fields([0x04034b50, 4]), common, label];
    directory.push(fields([0x02014b50, 4], [20, 2]), common, fields([0, 2], [0, 2], [0, 2], [0, 4], [offset, 4]), label);
    pieces.push(...local, blob);
    offset += 4 + common.length + label.length + bytes.length;
  }
  const size = directory.reduce((sum, piece) => sum + piece.length, 0);
  const end = fields([0x06054b50, 4], [0, 2], [0, 2], [files.length, 2], [files.length, 2], [size, 4], [offset, 4], [0, 2]);
  return new Blob([...pieces, ...directory, end], { type: "application/zip" });
}

/** A name that no other file has, also where capitals do not count. */
function freeName(wanted, taken, number) {
  let name = wanted;
  for (let each = number; taken.has(name.toLowerCase()); each++) name = `${each}-${wanted}`;
  return name;
}

function fields(...values) {
  const bytes = [];
  for (const [value, length] of values) {
    for (let at = 0; at < length; at++) bytes.push(Math.floor(value / 256 ** at) & 255);
  }
  return Uint8Array.from(bytes);
}
