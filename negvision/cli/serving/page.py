"""The page: drop an image, or two face crops, and see what the model finds."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import gradio as gr

from negvision.cli.serving.server import read_upload
from negvision.cli.serving.shown import Shown, at_page_size
from negvision.compat.patches import refuse_gradio_downloads
from negvision.errors import is_user_error
from negvision.inference.inferencer import Inferencer
from negvision.inference.runtime import Embedding

# Seconds after which uploads and results are deleted.
_KEPT_FOR = 900
_SESSIONS = 32
_DROP = "Drop an image on the left."
_DROP_TWO = "Drop two aligned face crops."
_STYLE = """
.bad * { color: #b00020; font-weight: 600; }
.dark .bad * { color: #ff8a80; }
#similarity input { font-size: 1.5rem; }
"""


def build_page(
    model: Inferencer,
    title: str,
    score_threshold: float,
    max_pixels: int,
) -> gr.Blocks:
    """The page of a model.

    Args:
        model: The model to try.
        title: Of the page.
        score_threshold: Where its slider starts.
        max_pixels: Largest height x width of an image.
    """
    read = partial(read_upload, decode=model.decode, max_pixels=max_pixels)
    with gr.Blocks(
        title=title, analytics_enabled=False, delete_cache=(_KEPT_FOR, _KEPT_FOR)
    ) as page:
        gr.Markdown(f"# {_plain(title)}")
        if model.task == "face":
            _add_face_comparison(model, read)
        else:
            _add_image_view(model, read, score_threshold)
    page.state_session_capacity = _SESSIONS
    page.queue(max_size=2 * _SESSIONS, api_open=False)
    # Gradio looks for requests a thousand times a second, also on an idle page.
    page._queue.sleep_when_free = 0.02
    return page


def _add_image_view(model: Inferencer, read: Callable, score_threshold: float) -> None:
    """Add the components for detectors, segmentors and classifiers."""
    is_detector, has_ood = model.task == "detection", model.ood_score is not None
    start = model.ood_threshold or 0.0
    shown = gr.State(time_to_live=_KEPT_FOR)
    # Without a threshold of the model, the slider starts at the highest score of the first image.
    is_placed = gr.State(model.ood_threshold is not None)
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            upload = _upload("Image", "upload")
            score = gr.Slider(
                *(0, 1, score_threshold),
                step=0.01,
                label="Score threshold",
                visible=is_detector,
                elem_id="score",
            )
            ood = gr.Slider(
                *(start - 1, start + 1, start),  # until there are scores
                step=0.001,
                label=f"OOD threshold: higher scores are unknown ({model.ood_score})",
                visible=has_ood,
                interactive=has_ood,
                elem_id="ood",
            )
        with gr.Column(scale=2, min_width=320):
            drawing = gr.Image(
                label="Predictions",
                show_label=False,  # it would cover the image
                format="png",
                interactive=False,
                buttons=["download", "fullscreen"],
                elem_id="picture",
            )
            note = gr.Markdown(_DROP, elem_id="note")
    table = gr.Dataframe(
        label="Boxes" if is_detector else "Classes",
        interactive=False,
        max_height=400,
        elem_id="table",
    )

    def show(kept: Shown | None, score_at: float, ood_at: float) -> list:
        if kept is None:
            return [None, None, _message(_DROP)]
        at = score_at, (ood_at if kept.has_ood else None)
        return [kept.drawing(*at), kept.table(*at), _message(kept.summary(*at))]

    def look(path: str | None, score_at: float, ood_at: float, placed: bool) -> list:
        if path is None:
            return [None, gr.skip(), gr.skip(), *show(None, score_at, ood_at)]
        try:
            image = read(path)
            [result] = model.predict([image])
            assert not isinstance(result, Embedding)
        except Exception as error:
            return [None, gr.skip(), gr.skip(), None, None, _failure(error)]
        kept = at_page_size(image, result, model.classes)
        if not kept.has_ood:
            return [kept, gr.skip(), gr.skip(), *show(kept, score_at, ood_at)]
        ood_at = ood_at if placed else kept.ood_range()[1]
        low, high = kept.ood_range(ood_at)
        slider = gr.update(minimum=low, maximum=high, value=ood_at)
        return [kept, slider, True, *show(kept, score_at, ood_at)]

    outputs = [drawing, table, note]
    inputs = [upload, score, ood, is_placed]
    upload.change(look, inputs, [shown, ood, is_placed, *outputs], api_visibility="private")
    gr.on(
        [score.input, ood.input],
        show,
        [shown, score, ood],
        outputs,
        show_progress="hidden",
        trigger_mode="always_last",
        api_visibility="private",
    )


def _add_face_comparison(model: Inferencer, read: Callable) -> None:
    """Add the components for face recognizers."""
    with gr.Row():
        uploads = [_upload("One face", "upload"), _upload("Another face", "other")]
    similarity = gr.Number(
        label="Cosine similarity: 1 for identical embeddings, about 0 for unrelated faces",
        interactive=False,
        precision=4,
        elem_id="similarity",
    )
    note = gr.Markdown(_DROP_TWO, elem_id="note")

    def compare(*paths: str | None) -> list:
        try:
            images = [read(path) for path in paths if path is not None]
            if len(images) < 2:
                return [None, _message(_DROP_TWO)]
            one, other = model.predict(images)
            assert isinstance(one, Embedding) and isinstance(other, Embedding)
        except Exception as error:
            return [None, _failure(error)]
        return [one.similarity(other), _message("")]

    for upload in uploads:
        upload.change(compare, uploads, [similarity, note], api_visibility="private")


def _upload(label: str, name: str) -> gr.Image:
    """An image that reaches us as the path of the uploaded file."""
    upload = gr.Image(
        label=label, sources=["upload", "clipboard"], height=320, buttons=[], elem_id=name
    )
    # Its own method decodes any file in Pillow, before a limit is checked.
    setattr(upload, "preprocess", lambda payload: payload and payload.path)  # noqa: B010
    return upload


def _message(text: str, bad: bool = False) -> dict:
    """An update of a Markdown component, in red if ``bad``."""
    return gr.update(value=_plain(text), elem_classes=["bad"] if bad else [])


def _failure(error: Exception) -> dict:
    if not is_user_error(error):
        raise error
    return _message(str(error), bad=True)


def _plain(text: str) -> str:
    """Markdown that shows ``text`` as it is: names of files and classes may contain anything."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)


def mount(page: gr.Blocks, max_upload: int, root: str = ""):
    """The page as an ASGI app at the root of its server.

    Args:
        page: Of :func:`build_page`.
        max_upload: Largest size of an uploaded file in bytes.
        root: Where a proxy shows the page: a path or a URL, without a slash at its end.
    """
    import fastapi

    refuse_gradio_downloads()
    app = gr.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None),
        page,
        path="/",
        root_path=root or None,
        allowed_paths=[],
        max_file_size=max_upload,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=gr.themes.Default(),  # its fonts are served from this host
        css=_STYLE,
    )
    # Only then Gradio refuses paths in requests that were not uploaded.
    page.has_launched = True
    return app
