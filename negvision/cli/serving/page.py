"""The page: drop an image, or two faces, and see what the model finds."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import gradio as gr

from negvision.cli.serving.server import read_upload
from negvision.cli.serving.shown import Scale, Shown, at_page_size, headers_of
from negvision.compat.patches import refuse_gradio_downloads
from negvision.errors import is_user_error, listed
from negvision.inference.inferencer import Inferencer
from negvision.inference.runtime import Embedding

# Seconds after which uploads and results are deleted.
_KEPT_FOR = 900
_SESSIONS = 32
_MOST_NAMED = 40
_DROP = "Drop an image on the left"
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
    examples: Sequence[Path] = (),
) -> gr.Blocks:
    """The page of a model.

    Args:
        model: The model to try.
        title: Of the page.
        score_threshold: Where its slider starts.
        max_pixels: Largest height x width of an image.
        examples: Images to click.
    """
    read = partial(read_upload, decode=model.decode, max_pixels=max_pixels)
    with gr.Blocks(
        title=title, analytics_enabled=False, delete_cache=(_KEPT_FOR, _KEPT_FOR)
    ) as page:
        gr.Markdown(f"# {_plain(title)}")
        if model.task == "face":
            _add_face_comparison(model, read, examples)
        else:
            named = listed(model.classes, _MOST_NAMED) or "not named"
            gr.Markdown(_plain(f"Classes: {named}"), elem_id="classes")
            _add_image_view(model, read, score_threshold, examples)
    page.state_session_capacity = _SESSIONS
    page.queue(max_size=2 * _SESSIONS, api_open=False)
    # Gradio looks for requests a thousand times a second, also on an idle page.
    page._queue.sleep_when_free = 0.02
    return page


def _add_image_view(
    model: Inferencer, read: Callable, score_threshold: float, examples: Sequence[Path]
) -> None:
    """Add the components for detectors, segmentors and classifiers."""
    is_detector, has_ood = model.task == "detection", model.ood_score is not None
    scale = Scale(model.ood_quantiles, model.ood_threshold)
    headers = headers_of(model.task, has_ood, scale)
    drop = f"{_DROP}, or click one below." if examples else f"{_DROP}."
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
                # Scores have a range once there are some.
                *((0, 100) if scale.quantiles else (scale.start - 1, scale.start + 1)),
                scale.start,
                step=0.1 if scale.quantiles else 0.001,
                label=_ood_label(model),
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
            note = gr.Markdown(drop, elem_id="note")
            _add_examples([[file] for file in examples], [upload])
    table = gr.Dataframe(
        headers=headers,
        value=[],
        label="Boxes" if is_detector else "Classes",
        interactive=False,
        max_height=400,
        elem_id="table",
    )

    def show(kept: Shown | None, score_at: float, ood_at: float) -> list:
        if kept is None:
            return [None, {"headers": headers, "data": []}, _message(drop)]
        at = score_at, (scale.score(ood_at) if kept.has_ood else None)
        return [kept.drawing(*at), kept.table(*at), _message(kept.summary(*at))]

    def look(path: str | None, score_at: float, ood_at: float, placed: bool) -> list:
        if path is None:
            return [None, gr.skip(), gr.skip(), *show(None, score_at, ood_at)]
        try:
            image = read(path)
            [result] = model.predict([image])
            assert not isinstance(result, Embedding)
        except Exception as error:
            return [None, gr.skip(), gr.skip(), *show(None, 0, 0)[:2], _failure(error)]
        kept = at_page_size(image, result, model.classes, scale)
        if not kept.has_ood or scale.quantiles:
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


def _ood_label(model: Inferencer) -> str:
    name = model.ood_score
    if not model.ood_quantiles:
        return f"OOD threshold: higher scores are unknown ({name})"
    samples = {"detection": "boxes", "segmentation": "pixels"}.get(model.task, "images")
    return f"OOD threshold: unknown above this percentile of known {samples} ({name})"


def _add_face_comparison(model: Inferencer, read: Callable, examples: Sequence[Path]) -> None:
    """Add the components for face recognizers."""
    with gr.Row():
        uploads = [_upload("One face", "upload"), _upload("Another face", "other")]
    similarity = gr.Number(
        label="Cosine similarity: 1 for identical embeddings, about 0 for unrelated faces",
        interactive=False,
        precision=4,
        elem_id="similarity",
    )
    takes = "aligned face crops" if model.face_detector_path is None else "photographs of a face"
    drop = f"Drop two {takes}."
    note = gr.Markdown(drop, elem_id="note")

    def compare(*paths: str | None) -> list:
        try:
            images = [read(path) for path in paths if path is not None]
            if len(images) < 2:
                return [None, _message(drop)]
            found = model.verify(*images)
        except Exception as error:
            return [None, _failure(error)]
        verdict = {None: "", True: "The same person", False: "Two people"}[found.same]
        return [found.similarity, _message(verdict and f"{verdict}: {model.face_threshold}.")]

    pairs = zip(examples[::2], examples[1::2], strict=False)
    _add_examples(list(map(list, pairs)), uploads)
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


def _add_examples(rows: list[list[Path]], uploads: list[gr.Image]) -> None:
    """Add pictures that fill the uploads when they are clicked."""
    if not rows:
        return
    files = [list(map(str, row)) for row in rows]
    # gr.Examples would build the uploads anew, without the method that _upload sets.
    samples = gr.Dataset(
        components=uploads, samples=files, type="index", label="Examples", elem_id="examples"
    )

    def choose(index: int) -> str | list[str]:
        chosen = files[index]
        return chosen if len(chosen) > 1 else chosen[0]

    samples.click(choose, [samples], uploads, show_progress="hidden", api_visibility="private")


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
