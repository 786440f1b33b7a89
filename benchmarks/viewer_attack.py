"""Latency of the viewer's tiles beside a stranger's slow connections, as a ratio to the same alone.

The stranger is another process. It holds more connections than the server keeps, sends a byte of each now and then, and
connects again where it is hung up on::

    python benchmarks/viewer_attack.py            300 connections, three kinds, 500 tiles each
    python benchmarks/viewer_attack.py --tiles 50
"""

import argparse
import http.client
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr

from segment_slide.pipeline.viewer.server import ViewServer, serve
from segment_slide.pipeline.viewer.site import Site

STRANGER = r"""
import socket, sys, time
port, begins, n = int(sys.argv[1]), sys.argv[2].encode().decode("unicode_escape").encode(), int(sys.argv[3])
def connect():
    made = socket.create_connection(("127.0.0.1", port)); made.setblocking(False)
    try: made.send(begins)
    except OSError: pass
    return made
held = [connect() for _ in range(n)]
print("begun", flush=True)
while True:
    for k in range(n):
        time.sleep(0.01)
        try: held[k].send(b"a")
        except BlockingIOError: pass
        except OSError:
            try: held[k] = connect()
            except OSError: pass
"""
HEAD = "GET /v/AAAA/ HTTP/1.1\\r\\nHost: localhost\\r\\n"
KINDS = {
    "header dribble": HEAD,
    "body dribble": f"{HEAD}Content-Length: 60000\\r\\n\\r\\n",
    "readers that stop": f"{HEAD}\\r\\n" * 50,
}


def measure(server: ViewServer, n_tiles: int) -> list[float]:
    """Seconds of each tile, over one connection as a browser has it, and over new ones in turns."""
    seconds, kept = [], http.client.HTTPConnection("127.0.0.1", server.port)
    for number in range(n_tiles):
        connection = kept if number % 2 else http.client.HTTPConnection("127.0.0.1", server.port)
        began = time.perf_counter()
        connection.request("GET", f"/v/{server.token}/data/0/c/{number % 4}/{number // 4 % 4}")
        answer = connection.getresponse()
        content = answer.read()
        seconds.append(time.perf_counter() - began)
        if answer.status != 200 or not content:
            raise SystemExit(f"a tile was not served: {answer.status}")
        if connection is not kept:
            connection.close()
    return seconds


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tiles", type=int, default=500)
    parser.add_argument("--connections", type=int, default=300)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pixels = np.random.default_rng(0).integers(0, 255, (1024, 1024), np.uint8)
        zarr.create_array(Path(folder) / "a.zarr", shape=pixels.shape, chunks=(256, 256), dtype="uint8")[...] = pixels
        site = Site("attacked", {"index.html": b"page"}, {"data/0": f"{folder}/a.zarr"})
        for kind, begins in KINDS.items():
            with serve(site) as server:
                measure(server, 20)
                alone = measure(server, chosen.tiles)
                words = [sys.executable, "-c", STRANGER, str(server.port), begins, str(chosen.connections)]
                with subprocess.Popen(words, stdout=subprocess.PIPE) as stranger:
                    try:
                        assert stranger.stdout is not None
                        stranger.stdout.readline()
                        beside = measure(server, chosen.tiles)
                    finally:
                        stranger.kill()
            one, other = (1000 * statistics.median(values) for values in (alone, beside))
            worst = 1000 * sorted(beside)[int(0.99 * len(beside))]
            print(
                f"{kind:18} alone {one:6.2f} ms  beside {other:6.2f} ms  ratio {other / one:5.2f}  99% {worst:7.2f} ms"
            )


if __name__ == "__main__":
    main()
