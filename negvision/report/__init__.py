"""Pages that a person can read and send on: one file each, with all that is shown inside it.

A page asks the network for nothing and runs no script.
"""

from negvision.report.ood_page import ood_page

__all__ = ["ood_page"]
