import sys

from negvision.cli.benchmark import main

sys.exit(main())
