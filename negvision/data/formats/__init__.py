"""Readers and writers of annotation files, and of whole folders in any format."""

from negvision.data.formats.contents import FolderData, ImageRecord, Instance
from negvision.data.formats.folder import FORMATS, TASKS, read_folder

__all__ = ["FORMATS", "TASKS", "FolderData", "ImageRecord", "Instance", "read_folder"]
