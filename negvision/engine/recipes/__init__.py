"""From a folder of annotated images to a config: what `negvision train DATA` chooses, and why."""
