"""Read image files safely: what every task needs before its own annotations."""

# Files with these suffixes count as images where a folder is searched, in lower case.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
