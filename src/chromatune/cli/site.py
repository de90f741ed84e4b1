"""`chromatune site`: the page as static files, which colorize in the visitor's tab."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chromatune.cli.terminal import plain, stages
from chromatune.errors import count_of


def site_command(
    *, out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the site; an earlier one is replaced.")]
) -> int:
    """Write the page of `serve` as static files that colorize in the visitor's tab, and print its files' size.

    Any web server serves them; nobody installs anything, and no photo leaves the tab. Making the site takes npm's
    packages from the network.
    """
    from chromatune.serving import write_site

    with stages() as start_stage:
        files = write_site(out, start_stage=start_stage)
    size = sum((out / name).stat().st_size for name in files)
    print(f"{plain(str(out))}\t{count_of(len(files), 'file')}, {size / 1e6:.1f} MB")
    return 0
