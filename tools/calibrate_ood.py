import sys

from negvision.cli.calibrate_ood import main

sys.exit(main())
