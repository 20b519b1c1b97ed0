import sys

from negvision.cli.main import main

sys.exit(main(["train", *sys.argv[1:]]))
