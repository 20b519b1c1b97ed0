import sys

from negvision.cli.predict import main

sys.exit(main())
