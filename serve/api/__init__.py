"""HTTP: schema, errors, keys, limits, server-sent events, metrics."""
