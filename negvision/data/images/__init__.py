"""Reading image files, safely: what every task needs before its own annotations."""
