import sys

from negvision.cli.report import main

sys.exit(main())
