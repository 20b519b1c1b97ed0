"""``python -m negvision`` is the program ``negvision``."""

import sys

from negvision.cli.main import main

sys.exit(main())
