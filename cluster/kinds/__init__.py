"""One file for each kind of cluster, with its name in `cluster.table`. Batch systems share the ``batch`` files."""
