import sys

from negvision.cli.train import main

sys.exit(main())
