"""What several tasks share: hooks, config checks, launch helpers."""
