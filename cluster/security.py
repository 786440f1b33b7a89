"""Certificates and private folders: everything of ours that listens uses TLS and requires a certificate.

Anyone who can connect to a Dask scheduler can run code as its owner, and every user of a machine can connect to its
loopback. So each cluster has a new certificate, which is its own authority. Workers on this machine get it from memory.
Workers in jobs read it from a folder that only the user can open.
"""

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segment_slide.cluster.errors import ClusterError
from segment_slide.cluster.spec import ClusterSpec

if TYPE_CHECKING:
    from distributed.security import Security

# How the names of our folders begin, and the file in each by whose lock a running process is known.
_OURS = "segment-slide-"
_LOCK = ".segment-slide.lock"


def temporary_security() -> "Security":
    """Make a certificate for scheduler, workers and client of one cluster. It is kept in memory.

    Raises
    ------
    ClusterError
        If the package for making it is not installed.
    """
    from distributed.security import Security

    try:
        return Security.temporary()
    except ImportError:
        raise ClusterError(
            "certificates cannot be made without the package cryptography: pip install cryptography"
        ) from None


def new_security(folder: str) -> "Security":
    """Make a certificate as `temporary_security` does, in files.

    Parameters
    ----------
    folder : str
        Where they are written, so that workers on other machines can read them. Only the user may open it.

    Raises
    ------
    ClusterError
        If the package for making them is not installed.
    """
    from distributed.security import Security

    made = temporary_security().get_tls_config_for_role("worker")
    paths = {}
    for part in ("ca_file", "cert", "key"):  # one certificate serves all three roles
        path = Path(folder) / f"{part}.pem"
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(made[part])
        paths[part] = str(path)
    roles = {
        f"tls_{role}_{part}": paths[part] for role in ("client", "scheduler", "worker") for part in ("cert", "key")
    }
    return Security(require_encryption=True, tls_ca_file=paths["ca_file"], **roles)


def joining_security(spec: ClusterSpec) -> "Security | None":
    """Return the client's certificate for an address with ``tls://``; None for ``tcp://``.

    Raises
    ------
    ClusterError
        If ``tcp://`` was not allowed. If a file is missing, or if neither the description nor Dask's configuration
        names the files.
    """
    from distributed.security import Security

    if not (spec.address or "").startswith("tls://"):
        if not spec.allow_unencrypted:
            raise ClusterError(
                f"address={spec.address}: connections with tcp:// are not encrypted and ask for no certificate, so "
                "everybody who reaches that scheduler or its workers can run code as you. Expected tls://host:port, "
                "or, where nobody else can reach them, `allow_unencrypted` (in a cluster's file the line "
                "allow_unencrypted: true)."
            )
        return None
    if spec.tls_ca_file is None:
        security: Any = Security(require_encryption=True)
        if security.tls_ca_file is None or security.tls_client_cert is None:
            raise ClusterError(
                f"address={spec.address}: certificates are needed; expected tls_ca_file, tls_cert and tls_key, or "
                "Dask's settings distributed.comm.tls."
            )
        return security
    for key in ("tls_ca_file", "tls_cert", "tls_key"):
        path = getattr(spec, key)
        if not os.access(path, os.R_OK):
            raise ClusterError(f"{key}={path}: there is no such file, or it cannot be read.")
    return Security(
        require_encryption=True,
        tls_ca_file=spec.tls_ca_file,
        tls_client_cert=spec.tls_cert,
        tls_client_key=spec.tls_key,
    )


@contextlib.contextmanager
def private_folder(parent: str, prefix: str, *, key: str = "shared_directory") -> Iterator[str]:
    """Make a new folder that only the user can open. It is removed with its content after the body.

    Parameters
    ----------
    parent : str
        Where to make it; made if it does not exist. Such folders in it that a killed run of this user left behind are
        removed.
    prefix : str
        How the folder's name goes on after ``segment-slide-``.
    key : str
        What the user calls `parent`, for messages.

    Raises
    ------
    ClusterError
        If it cannot be made, or if the file system lets others open it.
    """
    try:
        Path(parent).mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_abandoned(Path(parent))
        folder = tempfile.TemporaryDirectory(prefix=f"{_OURS}{prefix}", dir=parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise ClusterError(f"{key}={parent}: cannot be written: {error.strerror}.") from None
    with folder as path, open(Path(path) / f"{_LOCK}.new", "w") as lock:
        found = os.stat(path)
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise ClusterError(
                f"{key}={parent}: others can open what is made in it (mode {found.st_mode & 0o777:o}), and it has to "
                "be private; choose one on another file system."
            )
        with contextlib.suppress(OSError):  # without file locks, folders of killed processes are not removed
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(lock.name, Path(path) / _LOCK)  # under its name it is never seen without its lock
        yield path


def _remove_abandoned(parent: Path) -> None:
    """Remove the folders of processes that ended. A running process holds a lock on its folder.

    Others may have put folders of such names there, so only what is the user's own and private is touched.
    """
    for folder in parent.glob(f"{_OURS}*"):
        with contextlib.suppress(OSError):
            found = os.lstat(folder)
            is_private = found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) == 0o700
            if not stat.S_ISDIR(found.st_mode) or not is_private:
                continue
            with open(folder / _LOCK, "r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
