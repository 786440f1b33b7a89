"""The viewer as a folder of plain files: the same files are served by `server` or copied by `export`.

::

    index.html                   sends the browser on to v/<token>/
    v/<token>/index.html         neuroglancer's page, with our view.js in front of its scripts
    v/<token>/*.js, *.wasm, …    neuroglancer's client, as its package ships it
    v/<token>/view.js            what is shown at first
    v/<token>/data/0/…           a store's files, read-only
    v/<token>/data/…/info        what a table says of each object
"""

import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass, field

# Scripts, styles, pictures and data must come from the page's own host, wherever it is hosted.
# WebAssembly decodes chunks, and the client builds its styles at run time.
POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'wasm-unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    )
)


@dataclass(frozen=True)
class Site:
    """All files that a browser may fetch.

    Attributes
    ----------
    title : str
        Title of the browser's tab.
    files : mapping of str to bytes
        Generated files, by their path below ``v/<token>/``.
    stores : mapping of str to str
        Zarr groups (folder or URL) by the path below ``v/<token>/`` at which their files are served, such as "data/0".
    notes : tuple of str
        What could not be shown, and why: one sentence each.
    types : mapping of str to str
        Stores that are converted while they are read, by their path in `stores`: the dtype that the browser gets.
    """

    title: str
    files: Mapping[str, bytes]
    stores: Mapping[str, str]
    notes: tuple[str, ...] = field(default=())
    types: Mapping[str, str] = field(default_factory=dict)


def client_files() -> dict[str, bytes]:
    """neuroglancer's client by file name, without its page (which we rewrite) and without its source maps."""
    folder = importlib.resources.files("neuroglancer.static") / "client"
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if file.is_file() and not file.name.endswith((".map", ".html"))
    }
