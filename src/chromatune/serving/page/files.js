// How photos come in: chosen, dropped, also folders of them, or pasted.

const MOST_FILES = 1000; // of a drop

const $ = (id) => document.getElementById(id);

/** Takes files from everywhere on the page. */
export function takeFiles(page) {
  for (const id of ["choose", "add"]) $(id).addEventListener("click", () => $("files").click());
  $("files").addEventListener("change", () => {
    page.add($("files").files);
    $("files").value = "";
  });
  for (const type of ["dragenter", "dragover"]) {
    document.addEventListener(type, (event) => {
      event.preventDefault();
      document.body.classList.add("dropping");
    });
  }
  document.addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("dropping"));
  document.addEventListener("drop", (event) => page.try(() => drop(page, event)));
  document.addEventListener("paste", (event) => page.add(event.clipboardData?.files ?? []));
}

async function drop(page, event) {
  event.preventDefault();
  document.body.classList.remove("dropping");
  if (event.target.closest?.("#reference-box")) return page.colors.openReference(event.dataTransfer.files[0]);
  const { files, folders } = await droppedFiles(event.dataTransfer);
  page.add(files);
  if (folders.length) page.say(`${files.length} ${files.length === 1 ? "file" : "files"} from the folder ${folders.join(", ")}`);
}

/** Files of a drop and the names of its folders. To be called while the event is dispatched: its items go with it. */
async function droppedFiles(transfer) {
  const files = [...transfer.files];
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const folders = entries.filter((entry) => entry.isDirectory);
  if (!folders.length) return { files, folders: [] };
  const found = [];
  for (const entry of entries) await walk(entry, found);
  return { files: found, folders: folders.map(({ name }) => name) };
}

async function walk(entry, found) {
  if (found.length >= MOST_FILES || entry.name.startsWith(".")) return;
  if (entry.isFile) {
    found.push(await new Promise((done, fail) => entry.file(done, fail)));
    return;
  }
  const reader = entry.createReader(), inside = [];
  for (let part; (part = await new Promise((done, fail) => reader.readEntries(done, fail))).length;) inside.push(...part);
  for (const each of inside.sort((one, other) => one.name.localeCompare(other.name, undefined, { numeric: true }))) {
    await walk(each, found);
  }
}
