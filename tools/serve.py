import sys

from negvision.cli.serve import main

sys.exit(main())
