"""Training shared by all tasks: runner, hooks, config checks, checkpoints, launching."""
