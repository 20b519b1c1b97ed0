"""The page: an image or two are dropped on it, and what the model makes of them is shown."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import gradio as gr

from negvision.cli.serving.components import Upload, plain, say
from negvision.cli.serving.shown import Shown, at_page_size
from negvision.cli.serving.uploads import MAX_PIXELS, read_upload
from negvision.errors import is_user_error
from negvision.inference import Inferencer

SCORE_THRESHOLD = 0.3
# Seconds; what was uploaded and drawn is of no use once the page has been left.
_KEPT_FOR = 900
_SESSIONS = 32
_DROP = "Drop an image on the left."
_DROP_TWO = "Drop two aligned crops of faces."
_STYLE = """
.bad * { color: #b00020; font-weight: 600; }
.dark .bad * { color: #ff8a80; }
#similarity input { font-size: 1.5rem; }
"""


def build_page(
    model: Inferencer,
    title: str,
    score_threshold: float = SCORE_THRESHOLD,
    max_pixels: int = MAX_PIXELS,
) -> gr.Blocks:
    """The page of a model.

    Args:
        model: What is tried.
        title: Of the page.
        score_threshold: Where the slider stands at first.
        max_pixels: Height x width that an image may have.
    """
    read = partial(read_upload, decode=model.decode, max_pixels=max_pixels)
    with gr.Blocks(
        title=title, analytics_enabled=False, delete_cache=(_KEPT_FOR, _KEPT_FOR)
    ) as page:
        gr.Markdown(f"# {plain(title)}")
        if model.task == "face":
            _compare_faces(model, read)
        else:
            _look_at_image(model, read, score_threshold)
    page.state_session_capacity = _SESSIONS
    page.queue(max_size=2 * _SESSIONS, api_open=False)
    return page


def _look_at_image(model: Inferencer, read: Callable, score_threshold: float) -> None:
    """Lay out and wire what is for detectors and segmentors."""
    is_detector = model.task == "detection"
    shown = gr.State(time_to_live=_KEPT_FOR)
    start = model.ood_threshold or 0.0
    end = gr.State()  # of the OOD slider for the image before
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
                label=f"OOD threshold: unknown is what scores higher ({model.ood_score})",
                visible=model.ood_score is not None,
                interactive=model.ood_score is not None,
                elem_id="ood",
            )
        with gr.Column(scale=2, min_width=320):
            picture = gr.Image(
                label="What the model sees",
                show_label=False,  # it would lie on the picture
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

    def draw(kept: Shown | None, score_at: float, ood_at: float | None) -> list:
        if kept is None:
            return [None, None, say(_DROP)]
        at = score_at, (ood_at if kept.has_ood else None)
        values = {"headers": kept.columns(), "data": kept.rows(*at)}
        return [kept.picture(*at), values, say(kept.summary(*at))]

    def look(path: str | None, score_at: float, ood_at: float, end_at: float | None) -> list:
        same = [gr.skip(), gr.skip()]
        if path is None:
            return [None, *same, *draw(None, score_at, ood_at)]
        try:
            image = read(path)
            [result] = model.predict([image])
        except Exception as error:
            return [None, *same, None, None, say(_reason(error), bad=True)]
        kept = at_page_size(image, result, model.classes)
        if not kept.has_ood:
            return [kept, *same, *draw(kept, score_at, None)]
        ood_at = kept.next_threshold(ood_at, end_at, model.ood_threshold)
        low, high = kept.ood_range(ood_at)
        slider = gr.update(minimum=low, maximum=high, value=ood_at)
        return [kept, slider, kept.ood_range(None)[1], *draw(kept, score_at, ood_at)]

    drawn = [picture, table, note]
    hidden = {"api_visibility": "private"}
    upload.change(look, [upload, score, ood, end], [shown, ood, end, *drawn], **hidden)
    gr.on(
        [score.input, ood.input],
        draw,
        [shown, score, ood],
        drawn,
        show_progress="hidden",
        trigger_mode="always_last",
        **hidden,
    )


def _compare_faces(model: Inferencer, read: Callable) -> None:
    """Lay out and wire what is for face recognisers."""
    with gr.Row():
        uploads = [_upload("One face", "upload"), _upload("Another face", "other")]
    similarity = gr.Number(
        label="Cosine similarity: 1 for the same face, about 0 for two that have nothing in common",
        interactive=False,
        precision=4,
        elem_id="similarity",
    )
    note = gr.Markdown(_DROP_TWO, elem_id="note")

    def compare(*paths: str | None) -> list:
        try:
            images = [read(path) for path in paths if path is not None]
            if len(images) < 2:
                return [None, say(_DROP_TWO)]
            # One at a time: they need not be of one size.
            one, other = model.predict(images)
        except Exception as error:
            return [None, say(_reason(error), bad=True)]
        return [one.similarity(other), say("")]

    for upload in uploads:
        upload.change(compare, uploads, [similarity, note], api_visibility="private")


def _upload(label: str, name: str) -> Upload:
    return Upload(
        label=label,
        sources=["upload", "clipboard"],
        height=320,
        buttons=[],
        elem_id=name,
    )


def _reason(error: Exception) -> str:
    if is_user_error(error):
        return str(error)
    raise error


def mount(page: gr.Blocks, max_upload: int):
    """The page as an ASGI app, at the top of its server.

    Args:
        page: Of :func:`build_page`.
        max_upload: Bytes that an uploaded file may have.
    """
    import fastapi

    app = gr.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None),
        page,
        path="/",
        allowed_paths=[],
        max_file_size=max_upload,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=gr.themes.Default(),  # its fonts come from this host
        css=_STYLE,
    )
    # Without it Gradio takes any path in a request for one that the page itself wrote.
    page.has_launched = True
    return app
