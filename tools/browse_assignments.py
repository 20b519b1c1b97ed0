import sys

from negvision.cli.browse_assignments import main

sys.exit(main())
