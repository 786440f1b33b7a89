"""A secret for Prefect's temporary server; it must be there before Prefect is imported, so this imports nothing of it.

Without a server (``PREFECT_API_URL``) Prefect starts one for the process, on the machine's loopback, where each user of
the machine can reach it. It tells the names of slides, and what Prefect's own database in the home folder holds: its
variables and its blocks, which may be passwords. With a secret it answers nobody but its process.
"""

import secrets
import sys
from collections.abc import Mapping, MutableMapping
from pathlib import Path

_SETTINGS = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING")
_FILES = ("prefect.toml", "pyproject.toml", ".env")  # of the working directory, where Prefect looks for settings


def protect_temporary_server(environment: MutableMapping[str, str]) -> bool:
    """Choose a secret for the temporary server, unless the user configured a server or a secret.

    Parameters
    ----------
    environment : mutable mapping
        Of this process; other users cannot read it. Gains the secret for the server and for its client.

    Returns
    -------
    bool
        Whether a secret was chosen. If Prefect was imported before, it is too late.
    """
    if "prefect" in sys.modules or any(name in environment for name in _SETTINGS) or _is_configured(environment):
        return False
    secret = f"segment-slide:{secrets.token_urlsafe(24)}"
    environment["PREFECT_SERVER_API_AUTH_STRING"] = environment["PREFECT_API_AUTH_STRING"] = secret
    return True


def _is_configured(environment: Mapping[str, str]) -> bool:
    """Whether a file of Prefect's settings names a server or a secret."""
    home = Path(environment.get("PREFECT_HOME") or "~/.prefect")
    profiles = Path(environment.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    return any(map(_names_server, (profiles, *map(Path, _FILES))))


def _names_server(file: Path) -> bool:
    try:
        text = file.expanduser().read_text(encoding="utf-8", errors="replace").lower()
    except (OSError, RuntimeError):  # no such file, or no home
        return False
    lines = [line.strip() for line in text.splitlines() if not line.lstrip().startswith("#")]
    return "prefect" in text and any(
        name in line for line in lines for name in ("prefect_api_url", "auth_string", "tool.prefect.api", "[api")
    )
