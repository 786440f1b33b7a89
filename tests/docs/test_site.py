"""The built site needs nothing from another host, and building it warns of nothing."""

import re
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from tests.browser import PATIENCE_MS, open_browser
from tests.docs.support import ROOT

RESOURCE = re.compile(
    r"""<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|url\(["']?((?:https?:)?//[^"')]+)"""
    r"""|@import\s+["']((?:https?:)?//[^"']+)"""
)


def resources_of_others(text):
    """Addresses from which a page or style sheet loads; where a link leads does not count."""
    return [next(filter(None, found)) for found in RESOURCE.findall(text)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_no_page_loads_anything_from_another_host(site):
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(pages) > 20
    assert {str(page): found for page in pages if (found := resources_of_others(page.read_text()))} == {}


@pytest.mark.slow
def test_commands_options_and_modules_are_rendered_into_the_reference(site):
    commands = (site / "reference/command-line.html").read_text()
    assert 'id="segment-slide-cluster-check"' in commands
    assert "--block-time-limit" in commands
    assert 'id="segment_slide.unet.geometry.Geometry.halo"' in (site / "reference/python-unet.html").read_text()


@pytest.mark.browser
def test_the_search_finds_a_word_and_no_request_leaves_the_machine(site):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=site))
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    outside = []
    try:
        with open_browser() as browser:
            page = browser.new_page()
            page.set_default_timeout(PATIENCE_MS)
            page.on("request", lambda request: request.url.startswith(address) or outside.append(request.url))
            page.goto(address + "index.html")
            page.click(".md-search__input")
            page.type(".md-search__input", "stride")
            page.wait_for_selector(".md-search-result__item")
            assert "stride" in page.inner_text(".md-search-result").lower()
    finally:
        server.shutdown()
        server.server_close()
    assert not outside


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('<script src="https://a.org/x.js"></script>', ["https://a.org/x.js"]),
        ('<link rel="stylesheet" href="//a.org/x.css">', ["//a.org/x.css"]),
        ("@font-face { src: url(https://a.org/f.woff) }", ["https://a.org/f.woff"]),
        ('<a href="https://a.org">there</a> <img src="images/x.png"> url(data:image/svg+xml;utf8,x)', []),
    ],
)
def test_what_is_loaded_from_another_host_is_seen(text, expected):
    assert resources_of_others(text) == expected
