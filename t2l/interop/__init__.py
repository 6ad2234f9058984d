"""To and from the rest of the world: upstream's checkpoints, blends, merged models, the hub."""
