"""Command-line programs, one module a command; ``tools/*.py`` call them."""
