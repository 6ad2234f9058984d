"""The Ray Serve application: descriptions in, adapted generations out. `serve run serve.app:deployment` starts it."""
