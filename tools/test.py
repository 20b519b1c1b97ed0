import sys

from negvision.cli.main import main

sys.exit(main(["test", *sys.argv[1:]]))
