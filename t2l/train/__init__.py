"""Training: losses, the step, engines, one loop, and the state to resume from. Knows nothing of Ray."""
