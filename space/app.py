"""The web page: a voice is recorded or uploaded, and faces come out.

From a clone: `python -m space.app`. In a Space: this folder with `modeling_speech2face/` beside it.
"""

import os

import gradio as gr
from PIL import Image, ImageDraw, ImageFont

from modeling_speech2face import Speech2FacePipeline, load_audio, with_scale

SHOWN_SIZE = 256  # pixels; the faces are smaller
MAX_SECONDS = 120  # what is used of a recording
KEPT_SECONDS = 600  # uploads and results are deleted when they are older than this
LAUNCH_OPTIONS = {"max_file_size": "20mb", "footer_links": [], "run_history": False}

INTRODUCTION = """
# Speech2Face
Record somebody speaking, or upload a recording of a few seconds. Out come faces that a listener
could expect behind that voice. **They are of nobody**: each is drawn anew by a model that was
trained on synthetic people.
"""

WHAT_A_VOICE_TELLS = """
**What a voice tells, and what it does not.** What these faces show of a voice is perceived gender,
and nearly nothing else: measured on speakers whom the model never heard, age is not read from the
faces, nor is their build. It has nothing to say about skin colour, ancestry, hair, eyes, or who is
speaking: those are drawn at random, which is why the faces differ.

Do not use this to identify or to judge anyone. Recordings and faces are deleted from this server
within twenty minutes.
"""


def load_pipeline() -> Speech2FacePipeline:
    """Load the checkpoint that SPEECH2FACE_CHECKPOINT names; by default, the bundled one."""
    checkpoint = os.environ.get("SPEECH2FACE_CHECKPOINT")
    if checkpoint:  # a folder or a repository on the Hub
        return Speech2FacePipeline.from_pretrained(checkpoint)
    return Speech2FacePipeline.from_demo()


def with_visible_mark(image: Image.Image) -> Image.Image:
    """Enlarge a generated image and write on it that it is generated; its provenance is kept.

    Args:
        image (`PIL.Image.Image`): square, of any size.

    Returns:
        `PIL.Image.Image`: 256x256 pixels, RGB.
    """
    marked = image.convert("RGB").resize((SHOWN_SIZE, SHOWN_SIZE), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(marked, "RGBA")
    draw.rectangle((0, SHOWN_SIZE - 18, SHOWN_SIZE, SHOWN_SIZE), fill=(0, 0, 0, 150))
    draw.text(
        (6, SHOWN_SIZE - 16),
        "generated, shows nobody",
        fill=(255, 255, 255, 255),
        font=ImageFont.load_default(size=12),
    )
    return marked


def make_faces(
    pipeline: Speech2FacePipeline, voice: str | None, num_images: int, seed: int | None
) -> tuple[list[Image.Image], Image.Image, Image.Image | None, str]:
    """Draw faces for a recording.

    Args:
        pipeline (`Speech2FacePipeline`): what draws them.
        voice (`str`, *optional*): path of a recording; its first 120 s are used.
        num_images (`int`): how many faces.
        seed (`int`): the same recording and seed give the same faces.

    Returns:
        The faces, the average face and the certainty map with its scale (None for a single face
        that is all there is), all with the visible mark; and in words what the voice tells, "" if
        the pipeline does not say.

    Raises:
        gr.Error: there is no recording or no seed, the recording cannot be read, or nobody speaks
            in it.
    """
    import torch

    if voice is None:
        raise gr.Error("Record or upload a voice first.")
    if seed is None:
        raise gr.Error("Enter a seed: any whole number from 0.")
    sampling_rate = pipeline.feature_extractor.sampling_rate
    try:
        with open(voice, "rb") as file:
            waveform = load_audio(file, sampling_rate, max_seconds=MAX_SECONDS)
        output = pipeline(
            waveform,
            sampling_rate=sampling_rate,
            num_images_per_prompt=int(num_images),
            generator=torch.Generator().manual_seed(int(seed)),
        )
    except ValueError as error:
        sentence = str(error)
        raise gr.Error(sentence[:1].upper() + sentence[1:]) from error
    certainty = with_scale(with_visible_mark(output.certainty)) if output.certainty else None
    images = [with_visible_mark(image) for image in output.images]
    return images, with_visible_mark(output.average_face), certainty, output.told or ""


def build_app(pipeline: Speech2FacePipeline | None = None) -> gr.Blocks:
    """Build the page.

    Args:
        pipeline (`Speech2FacePipeline`, *optional*): the one to use; by default that of
            `load_pipeline`.

    Returns:
        `gr.Blocks`: call its `launch()`.
    """
    pipeline = pipeline or load_pipeline()
    pipeline.set_progress_bar_config(disable=True)

    def on_click(voice, num_images, seed):
        return make_faces(pipeline, voice, num_images, seed)

    with gr.Blocks(
        title="Speech2Face", analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)
    ) as app:
        gr.Markdown(INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=3):
                voice = gr.Audio(
                    sources=["microphone", "upload"],
                    type="filepath",
                    label="Voice (the first two minutes are used)",
                    buttons=[],
                )
            with gr.Column(scale=2):
                num_images = gr.Slider(1, 8, value=4, step=1, label="Number of faces")
                seed = gr.Number(value=0, precision=0, minimum=0, maximum=2**32 - 1, label="Seed")
                button = gr.Button("Show faces", variant="primary")
        # PNG, because it keeps the provenance that the pipeline writes into an image.
        shown = {"format": "png", "show_label": False, "interactive": False}
        gr.Markdown("**Faces**, each of them possible behind this voice")
        faces = gr.Gallery(columns=4, buttons=["download"], **shown)
        told = gr.Markdown()
        with gr.Row():
            with gr.Column(min_width=200):
                gr.Markdown("**Average** of more such faces: what they share")
                average = gr.Image(buttons=["download"], **shown)
            with gr.Column(min_width=200):
                gr.Markdown("**What the voice fixes**: bright where these agree")
                certainty = gr.Image(buttons=["download"], **shown)
            with gr.Column(min_width=200):
                gr.Markdown(WHAT_A_VOICE_TELLS)
        button.click(on_click, [voice, num_images, seed], [faces, average, certainty, told])
    return app


def main() -> None:
    """Serve the page."""
    build_app().launch(**LAUNCH_OPTIONS)


if __name__ == "__main__":
    main()
