"""Generated datasets that need no download."""
