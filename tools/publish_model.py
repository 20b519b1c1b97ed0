import sys

from negvision.cli.publish_model import main

sys.exit(main())
