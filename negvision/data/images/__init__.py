"""Read image files safely: what every task needs before its own annotations."""

# Files with these suffixes count as images where a folder is searched, in lower case.
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff",
    ".gif", ".jp2", ".avif", ".ppm", ".pgm", ".pnm",
)  # fmt: skip
