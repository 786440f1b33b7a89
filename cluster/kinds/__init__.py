"""One file for each kind of cluster, named as `cluster.table` names it; what batch systems share is in ``batch``."""
