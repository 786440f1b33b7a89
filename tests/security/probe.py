"""Ask every port of a list for what a stranger may not have. Imports nothing of ours, so that any user can run it.

Usage: ``python probe.py PORT …``, each as HOST:PORT. It prints what each port gave away, as JSON.
"""

import http.client
import json
import os
import socket
import ssl
import sys
from concurrent.futures import ThreadPoolExecutor

LIMIT_S = 3

# Pages of Dask's HTTP servers that tell of the work, or offer to change it.
PAGES = (
    "/",
    "/status",
    "/info/main/workers.html",
    "/json/counts.json",
    "/json/identity.json",
    "/metrics",
    "/health",
    "/api/v1",
    "/sitemap.json",
    "/eventstream",
    "/proxy/8787/127.0.0.1/status",
)

# The first bytes of Dask's protocol: one frame of eight bytes, all zero.
GREETING = b"\x10" + b"\x00" * 31


def ask_pages(host: str, port: int) -> list[str]:
    """Pages that answer with content. Not found, and a list of no pages but itself, are no content."""
    given = []
    for page in PAGES:
        connection = http.client.HTTPConnection(host, port, timeout=LIMIT_S)
        try:
            connection.request("GET", page)
            answer = connection.getresponse()
            body = answer.read(100_000)
        except (OSError, http.client.HTTPException):
            return given  # it does not speak HTTP
        finally:
            connection.close()
        is_empty_list = page == "/sitemap.json" and json.loads(body)["paths"] in ([], [page])
        if answer.status != 404 and not is_empty_list:
            given.append(f"GET {page}: {answer.status}")
    return given


def ask_tls(host: str, port: int) -> list[str]:
    """Whether a TLS session without a certificate is served: in TLS 1.3 the refusal comes with the first answer."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=LIMIT_S) as plain,
            context.wrap_socket(plain) as session,
        ):
            session.sendall(GREETING)
            return ["a TLS session"] if session.recv(100) else []
    except (OSError, ssl.SSLError):
        return []


def ask_plainly(host: str, port: int) -> list[str]:
    """Whether Dask's protocol is spoken without encryption: then the other side sends its handshake first."""
    with socket.create_connection((host, port), timeout=LIMIT_S) as plain:
        plain.settimeout(2)
        try:
            sent = plain.recv(1000)
        except OSError:
            return []
    return [f"{len(sent)} bytes in plain"] if sent else []


def main() -> None:
    """Ask all ports, and print what they gave."""
    words = sys.argv[1:]
    with ThreadPoolExecutor() as pool:
        given = dict(zip(words, pool.map(ask, words), strict=True))
    sys.stdout.write(json.dumps({"uid": os.getuid(), "given": given}))


def ask(word: str) -> list[str]:
    """Everything that one port gives."""
    host, _, port = word.rpartition(":")
    return [*ask_plainly(host, int(port)), *ask_tls(host, int(port)), *ask_pages(host, int(port))]


if __name__ == "__main__":
    main()
