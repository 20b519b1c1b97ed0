import sys

from negvision.cli.main import main

sys.exit(main(["export", *sys.argv[1:]]))
