"""What the site needs beyond docs/: pages that stand at the repository's root, the API's description, links to code.

mkdocs calls these functions (mkdocs.yml, `hooks`).
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
ROOT_PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
}
LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the root's pages and the OpenAPI description of the server."""
    for source, page in ROOT_PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_relinked(text, "", config)))
    files.append(File.generated(config, "openapi.json", content=_openapi()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return the page with links that leave docs/ led to the site's own copy, or to the repository."""
    if page.file.src_uri in ROOT_PAGES.values():
        return markdown
    return _relinked(markdown, posixpath.join("docs", posixpath.dirname(page.file.src_uri)), config)


def _relinked(markdown: str, folder: str, config: MkDocsConfig) -> str:
    """The Markdown of a page in `folder` of the repository, with links as the site needs them."""

    def relinked(match: re.Match[str]) -> str:
        target = match[2]
        if ":" in target:
            return match[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        if path in ROOT_PAGES:
            wanted = posixpath.join("docs", ROOT_PAGES[path])
        elif path.startswith("docs/"):
            wanted = path
        else:
            kind = "tree" if (ROOT / path).is_dir() else "blob"
            return f"{match[1]}{config.extra['repository']}/{kind}/main/{path}{match[3]}"
        return f"{match[1]}{posixpath.relpath(wanted, folder or 'docs')}{match[3]}"

    return LINK.sub(relinked, markdown)


def _openapi() -> str:
    """The description of the server's API as JSON; no model is opened for it."""
    from chromatune.serving import LocalPredictor, create_app, make_serve_settings

    settings = make_serve_settings()
    return json.dumps(create_app(LocalPredictor(settings), settings).openapi())
