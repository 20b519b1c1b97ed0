import sys

from negvision.cli.export import main

sys.exit(main())
