import sys

from negvision.cli.voc_to_coco import main

sys.exit(main())
