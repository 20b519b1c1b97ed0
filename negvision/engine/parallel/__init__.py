"""Several processes: how they start, and what each of them holds."""
