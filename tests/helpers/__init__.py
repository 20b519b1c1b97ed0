"""What tests of several parts share; tests import it as ``helpers.NAME``."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
