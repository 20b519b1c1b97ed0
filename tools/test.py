import sys

from negvision.cli.test import main

sys.exit(main())
