"""Training in several processes: launching, wrapping and sharding."""
