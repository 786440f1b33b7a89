"""Join a scheduler that somebody else started. Nothing is started here, so only the connection is closed at the end."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from segment_slide.cluster.configuration import NETWORK, adopt_site, exactly
from segment_slide.cluster.errors import ClusterError, WorkersLostError
from segment_slide.cluster.fields import Field, choose_fields
from segment_slide.cluster.kind import Kind, Remedies
from segment_slide.cluster.patience import JOIN_S
from segment_slide.cluster.security import joining_security
from segment_slide.cluster.settings import TERMINATE_FRACTION, quieten
from segment_slide.cluster.spec import ClusterSpec
from segment_slide.cluster.versions import check_versions
from segment_slide.cluster.waiting import run_everywhere, wait_for_workers

if TYPE_CHECKING:
    from distributed import Client

_MAX_PORT = 65535


class Address(Kind):
    """A scheduler that runs already."""

    fields: Mapping[str, Field] = choose_fields(
        "address", "allow_unencrypted", "tls_ca_file", "tls_cert", "tls_key", "wait", "block_time_limit"
    )
    counted = None
    is_elsewhere = True

    def check(self, spec: ClusterSpec) -> None:
        """Check the address, and that all three files of a certificate are given or none."""
        scheme, _, rest = (spec.address or "").partition("://")
        host, _, port = rest.rpartition(":")
        if scheme not in ("tcp", "tls") or not host or not port.isdecimal() or not 0 < int(port) <= _MAX_PORT:
            raise ClusterError(f"address={spec.address!r}, expected tcp://host:port or tls://host:port.")
        files = (spec.tls_ca_file, spec.tls_cert, spec.tls_key)
        if scheme == "tcp" and any(files):
            raise ClusterError(f"address={spec.address}: certificates are of no use with tcp://; expected tls://.")
        if any(files) and not all(files):
            raise ClusterError("tls_ca_file, tls_cert and tls_key: expected all three, or none (Dask's own settings).")

    def complete(self, spec: ClusterSpec, *, short_tasks: bool = False) -> ClusterSpec:
        """Fill in what the scheduler's workers have."""
        return complete_address(spec) if spec.memory_bytes is None else spec

    def open(self, spec: ClusterSpec) -> contextlib.AbstractContextManager["Client"]:
        """Join it."""
        return address_client(spec)

    def remedies(self, spec: ClusterSpec) -> Remedies:
        """Advice for a cluster that we did not start and cannot change."""
        deaths = "If memory was short, give each worker more. The workers' logs are where the workers run."
        return Remedies("memory", "check the driver", deaths)


def complete_address(spec: ClusterSpec) -> ClusterSpec:
    """Ask the scheduler for its workers, and plan with the least memory and the most threads that any of them has.

    Raises
    ------
    ClusterError
        If it does not answer, or has no workers within the time limit.
    """
    with address_client(spec) as client:
        fractions = run_everywhere(client, _pause_fraction)
        workers = client.scheduler_info(n_workers=-1)["workers"].values()  # by default it lists only five
    if not workers:
        raise WorkersLostError(f"address={spec.address}: its workers were lost while the work was planned.")
    memory = min(int(worker["memory_limit"] or 0) for worker in workers)
    if memory < 1:
        raise ClusterError(
            f"address={spec.address}: its workers have no memory limit, so no plan can be made; start them with "
            "--memory-limit."
        )
    threads = max(int(worker["nthreads"]) for worker in workers)
    usable = int(memory * min([*fractions.values(), TERMINATE_FRACTION]))
    return replace(
        spec, workers=len(workers), cores=max(1, threads - 1), memory_bytes=-int(-usable // TERMINATE_FRACTION)
    )


def _pause_fraction() -> float:
    """The share of its memory above which a worker pauses or is ended. Runs on the worker."""
    import dask

    shares = [dask.config.get(f"distributed.worker.memory.{what}") for what in ("pause", "terminate")]
    return min([float(share) for share in shares if share], default=1.0)


@contextlib.contextmanager
def address_client(spec: ClusterSpec) -> Iterator["Client"]:
    """Connect, check versions and yield the client. The cluster keeps running when the client leaves.

    Parameters
    ----------
    spec : ClusterSpec
        With an address.

    Raises
    ------
    ClusterError
        If the address is unencrypted and that was not allowed. If the scheduler does not answer or requires a
        certificate, or if versions do not agree. If the site's configuration of Dask cannot be read.
    """
    adopt_site(NETWORK)
    quieten()
    logger = logging.getLogger("distributed.client")
    with exactly({}, keep=(NETWORK,)), _level_restored(logger), _open(spec) as client:
        wait_for_workers(client, spec)
        check_versions(client)
        try:
            yield client
        finally:
            if client.status != "running":  # the scheduler is gone, so closing fails too: do not log that
                logger.setLevel(logging.CRITICAL)


@contextlib.contextmanager
def _level_restored(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    try:
        yield
    finally:
        logger.setLevel(level)


def _open(spec: ClusterSpec) -> "Client":
    from distributed import Client
    from distributed.versions import VersionMismatchWarning

    options: dict[str, Any] = {"timeout": min(JOIN_S, spec.wait_s), "security": joining_security(spec)}
    with warnings.catch_warnings():
        # check_versions reports this as an error that names the worker
        warnings.simplefilter("ignore", VersionMismatchWarning)
        try:
            return Client(spec.address, **options)
        except (OSError, TimeoutError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ClusterError(f"address={spec.address}: cannot connect to a Dask scheduler: {reason}") from None


KIND = Address()
