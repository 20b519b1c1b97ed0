import sys

from negvision.cli.check_dataset import main

sys.exit(main())
