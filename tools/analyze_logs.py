import sys

from negvision.cli.analyze_logs import main

sys.exit(main())
