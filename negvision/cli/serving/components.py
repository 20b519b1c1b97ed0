"""What Gradio's components lack for files and names of anybody."""

from __future__ import annotations

import re
from pathlib import Path

import gradio as gr

from negvision.compat.patches import write_no_gradio_stubs

write_no_gradio_stubs()


class Upload(gr.Image):
    """An image that reaches us as the path of the file that was uploaded, with nothing decoded.

    A request may name any file of this machine, or an address, in the place of an uploaded one:
    neither is looked at.
    """

    is_template = True

    def preprocess(self, payload) -> str | None:
        """The path; Gradio's own method opens the file in Pillow, whatever it holds."""
        return payload and self._uploaded(payload.path)

    async def async_move_resource_to_block_cache(self, url_or_file_path):
        """Before Gradio copies or fetches it."""
        return await super().async_move_resource_to_block_cache(self._uploaded(url_or_file_path))

    def _uploaded(self, path: str | None) -> str:
        folder = Path(self.GRADIO_CACHE).resolve()
        if not path or folder not in Path(path).resolve().parents:
            raise gr.Error("Only files that were uploaded are looked at.", print_exception=False)
        return str(path)


def say(text: str, bad: bool = False) -> dict:
    """What a Markdown component is changed to, to say ``text``; in red where it is ``bad``."""
    return gr.update(value=plain(text), elem_classes=["bad"] if bad else [])


def plain(text: str) -> str:
    """Markdown that shows ``text`` as it is: names of files and classes are anybody's."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)
