"""What stands where on the page, and which click leads to which function."""

from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr

from . import texts
from .drawing import Artist, is_zero_gpu
from .endpoints import Endpoints, Page
from .figures import figures
from .limits import (
    EXAGGERATION,
    KEPT_SECONDS,
    MAX_FACES,
    MAX_FILE_SIZE,
    MAX_GUIDANCE,
    MAX_NEAREST,
    MAX_SEED,
    MAX_STEPS,
    MAX_WAITING,
    SWEEP_SECONDS,
)
from .results import SHOWN_NEAREST
from .signed_images import signing_key
from .uploads import EXAMPLES, Swept
from .weights import Weights

if TYPE_CHECKING:
    from modeling_speech2face import Speech2FacePipeline

DECODER_CHOICES = [
    ("Varied faces (diffusion)", "diffusion"),
    ("The average-looking face (the paper’s)", "normalized"),
]
# One after the other: the pipeline's scheduler has a state, and two drawings gain nothing.
ONE_AT_A_TIME = {"concurrency_limit": 1, "concurrency_id": "drawing"}
SYSTEM_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
THEME = gr.themes.Base(
    primary_hue=gr.themes.colors.teal,
    neutral_hue=gr.themes.colors.stone,
    radius_size=gr.themes.sizes.radius_lg,
    text_size=gr.themes.sizes.text_md,
    font=SYSTEM_FONTS,
    font_mono=["ui-monospace", "Consolas", "monospace"],
).set(
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_800",
    button_primary_text_color="white",
    button_primary_text_color_dark="white",
    body_background_fill="*neutral_50",
    checkbox_border_radius="4px",  # or it is as round as a radio button
    block_label_text_color="*neutral_700",
    block_info_text_color="*neutral_600",
    block_info_text_color_dark="*neutral_300",
)
# For `Blocks.launch`. Without server-side rendering, which would need Node.
LAUNCH_OPTIONS = {
    "max_file_size": MAX_FILE_SIZE,
    "footer_links": [],
    "run_history": False,
    "enable_monitoring": False,
    "ssr_mode": False,
    "theme": THEME,
    "css_paths": Path(__file__).parent / "style.css",
}


def build_app(pipeline: "Speech2FacePipeline | None" = None) -> Page:
    """Builds the page, and loads nothing: that is for `serve`, when it answers already.

    Args:
        pipeline (`Speech2FacePipeline`, *optional*): the one to use; by default that of
            `announced_weights`.

    Returns:
        `Page`, to be served.

    Raises:
        CheckpointError, OSError: as `announced_weights`.
    """
    artist = Artist(pipeline)
    endpoints = Endpoints(artist)
    age = KEPT_SECONDS - SWEEP_SECONDS  # a file may have to wait for the next look
    # Served where they are: copies would be taken for old recordings, and swept away.
    gr.set_static_paths(list(EXAMPLES))
    with Page(title=texts.TITLE, analytics_enabled=False, delete_cache=(SWEEP_SECONDS, age)) as app:
        gr.HTML(f"<h1>{texts.TITLE}</h1><p class='s2f-lead'>{texts.LEAD}</p>")
        with gr.Row(elem_classes="s2f-main"):
            with gr.Column(scale=5, min_width=300):
                consent, voice, second_voice = _voices(endpoints)
                settings = _settings(artist.weights)
                button = gr.Button("Draw faces", variant="primary", interactive=False, size="lg")
            with gr.Column(scale=8, min_width=300):
                gr.HTML("<h2>Faces</h2>")
                faces = gr.HTML(elem_id="faces")
                example = gr.HTML(elem_id="example")  # hidden by the style once there are faces
        bundled, name = artist.weights.are_bundled, artist.weights.name
        gr.HTML(texts.CAN_AND_CANNOT if bundled else texts.CAN_AND_CANNOT_OF_OTHERS)
        gr.HTML(figures(name), elem_classes="s2f-figures")
        with gr.Accordion("Use it from code", open=False):
            gr.Markdown(texts.FROM_CODE)
        consent.change(
            lambda agreed: gr.update(interactive=agreed is True),
            consent,
            button,
            queue=False,
            api_visibility="private",
            show_progress="hidden",
        )
        app.load(
            endpoints.example,
            outputs=example,
            api_visibility="private",
            show_progress="hidden",
            concurrency_limit=None,  # all wait for the same
        )
        button.click(
            endpoints.show,
            [consent, voice, second_voice, *settings],
            faces,
            preprocess=False,  # every value is checked there, whatever its type
            api_visibility="private",
            show_progress="minimal",
            **ONE_AT_A_TIME,
        )
        _api(endpoints, voice, consent, settings)
        app.unload(endpoints.forget)
    app.endpoints = endpoints
    app.upload_file_set = endpoints.uploads
    app.temp_file_sets = [Swept(files) for files in [endpoints.uploads, *app.temp_file_sets[1:]]]
    return app.queue(max_size=MAX_WAITING)


def serve(app: Page, **options) -> str:
    """Launches the page, and then loads and draws what it needs before the first click.

    Args:
        app (`Page`): from `build_app`.
        options: further ones of `gr.Blocks.launch`.

    Returns:
        `str`: its address. It goes on answering until `app.close` or the end of the process.

    Raises:
        CheckpointError, ValueError, RuntimeError: as `Artist.load`, and `load_signing_key`.
    """
    signing_key()  # what is wrong with it is said here, and not hidden from every visitor
    if is_zero_gpu():
        app.endpoints.artist.load()
    _, address, _ = app.launch(prevent_thread_lock=True, **LAUNCH_OPTIONS, **options)
    app.endpoints.artist.load()
    app.endpoints.draw_example()
    return address


def _voices(endpoints: Endpoints) -> tuple[gr.Checkbox, gr.Audio, gr.Audio]:
    """The consent, and what appears when it is given: recorders, films, examples."""
    gr.HTML("<h2>Voice</h2>")
    consent = gr.Checkbox(label=texts.CONSENT, info=texts.CONSENT_NOTE, elem_id="consent")
    with gr.Column(visible=False) as inputs:
        voice = _recorder("Voice")
        film = gr.UploadButton("Take the voice of a film", file_types=["video"], size="sm")
        gr.Examples(
            [[str(path)] for path in EXAMPLES],
            [voice],
            label="No microphone? Take a recording of LibriSpeech",
            example_labels=list(EXAMPLES.values()),
            api_visibility="private",
        )
        compare = gr.Checkbox(label="Compare with a second voice")
        second_voice = _recorder("Second voice", visible=False)
    shown = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}
    consent.change(lambda agreed: gr.update(visible=agreed is True), consent, inputs, **shown)
    compare.change(
        lambda wanted: gr.update(visible=wanted is True, value=None), compare, second_voice, **shown
    )
    film.upload(
        endpoints.sound_of_film, [consent, film], voice, preprocess=False, api_visibility="private"
    )
    return consent, voice, second_voice


def _recorder(label: str, visible: bool = True) -> gr.Audio:
    return gr.Audio(
        sources=["microphone", "upload"],
        type="filepath",
        label=label,
        buttons=[],
        visible=visible,
        waveform_options=gr.WaveformOptions(
            waveform_color="#8aa5a2", waveform_progress_color="#0f766e", skip_length=1
        ),
    )


def _settings(weights: Weights) -> list[gr.components.Component]:
    """What `checked_settings` takes, in its order."""
    num_images = gr.Slider(1, MAX_FACES, value=4, step=1, label="Number of faces")
    with gr.Accordion("More settings", open=False):
        seed = gr.Number(
            0,
            label="Seed",
            info="The same voice and seed give the same faces; another seed gives others.",
            precision=0,
            minimum=0,
            maximum=MAX_SEED,
        )
        choices = DECODER_CHOICES[: None if weights.have_normalized_decoder else 1]
        decoder = gr.Radio(choices, value="diffusion", label="Decoder")
        num_steps = gr.Slider(
            1,
            MAX_STEPS,
            value=weights.num_inference_steps,
            step=1,
            label="Steps",
            info="More steps take longer.",
        )
        scale = gr.Slider(
            1,
            MAX_GUIDANCE,
            value=weights.guidance_scale,
            step=0.1,
            label="Guidance",
            info="More follows the voice more closely, and varies less.",
        )
        exaggeration = gr.Slider(
            *EXAGGERATION,
            value=1,
            step=0.05,
            label="Exaggeration",
            info="Above 1, away from the average face, like a caricature; below, towards it.",
        )
    decoder.change(
        lambda chosen: [gr.update(interactive=chosen == "diffusion")] * 2,
        decoder,
        [num_steps, scale],
        queue=False,
        api_visibility="private",
        show_progress="hidden",
    )
    return [num_images, seed, decoder, num_steps, scale, exaggeration]


def _api(endpoints: Endpoints, voice, consent, settings) -> None:
    """What `gradio_client` finds: /generate and /retrieve, whose results are files."""
    with gr.Row(visible=False):
        call, look_up = gr.Button(), gr.Button()
        faces = gr.Gallery(label="faces", format="png")
        average = gr.Image(label="average face", format="png")
        certainty = gr.Image(label="where the faces agree", format="png")
        told = gr.Textbox(label="what the voice tells")
        sheet = gr.Image(label="sheet", format="png")
        count = gr.Number(SHOWN_NEAREST, label=f"how many, 1 to {MAX_NEAREST}", precision=0)
        nearest = gr.Gallery(label="nearest faces of the invented cast", format="png")
        similarities = gr.JSON(label="similarities")
    call.click(
        endpoints.generate,
        [voice, consent, *settings],
        [faces, average, certainty, told, sheet],
        api_name="generate",
        preprocess=False,
        **ONE_AT_A_TIME,
    )
    look_up.click(
        endpoints.retrieve,
        [voice, consent, count],
        [nearest, similarities],
        api_name="retrieve",
        preprocess=False,
        **ONE_AT_A_TIME,
    )
