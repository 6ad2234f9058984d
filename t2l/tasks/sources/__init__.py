"""Tasks of other people's, from files or the hub: one file a source."""
