import sys

from negvision.cli.ood_report import main

sys.exit(main())
