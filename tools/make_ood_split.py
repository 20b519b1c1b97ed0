import sys

from negvision.cli.make_ood_split import main

sys.exit(main())
