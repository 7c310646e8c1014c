"""Starting a run on the nodes of a cluster, and deciding what becomes of it when it ends."""
