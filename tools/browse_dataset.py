import sys

from negvision.cli.browse_dataset import main

sys.exit(main())
