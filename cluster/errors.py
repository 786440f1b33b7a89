"""Errors of the cluster package.

::

    ClusterError (RuntimeError)   workers that did not start, or a machine that cannot hold them
    └── WorkersLostError          workers that ended again and again before the work began; later it may go well
"""


class ClusterError(RuntimeError):
    """A cluster could not be started or joined as asked."""


class WorkersLostError(ClusterError):
    """Workers were killed or left, each time that they were replaced. Nothing is wrong with the request."""
