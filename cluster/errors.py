"""Errors of the cluster package.

::

    ClusterError (RuntimeError)   workers that did not start, or a machine that cannot hold them
"""


class ClusterError(RuntimeError):
    """A cluster could not be started or joined as asked."""
