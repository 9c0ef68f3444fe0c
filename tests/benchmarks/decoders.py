"""Time a face takes by each decoder, a step of denoising, and an embedding by dlib and by torch.

`python -m tests.benchmarks.decoders [--checkpoint C] [--device cuda]`: all in one run on one
machine. dlib's own network runs on the CPU, whatever the device.
"""

import argparse
from collections.abc import Callable, Sequence

import numpy as np

from tests.benchmarks.pipeline import median_seconds

NUM_IMAGES = 4
MANY_STEPS = 25  # what fewer are compared with
TEACHER_BATCHES = (1, 32)


def measure_decoders(pipeline, device: str, runs: int) -> dict[str, float]:
    """Seconds a face, from an embedding to pixels, of each decoder that the pipeline has."""
    import torch

    raw = pipeline.voice_encoder.face_embedding_mean.float().cpu() + 0.02

    def timed(decoder: str, images: int, **options) -> float:
        embeddings = raw.expand(images, -1)

        def decode():
            pipeline(
                face_embedding=embeddings,
                decoder=decoder,
                num_images_per_prompt=1,
                output_type="pt",
                **options,
            )
            if device == "cuda":
                torch.cuda.synchronize()

        return median_seconds(decode, runs) / images

    times = {}
    if pipeline.normalized_decoder is not None:
        size = pipeline.normalized_decoder.size
        for images in (1, NUM_IMAGES):
            times[f"normalized, {size}x{size}, {images} at once"] = timed("normalized", images)
    steps = pipeline.config.num_inference_steps
    for images in (1, NUM_IMAGES):
        times[f"diffusion, {steps} steps, {images} at once"] = timed("diffusion", images)
    many = timed("diffusion", NUM_IMAGES, num_inference_steps=MANY_STEPS)
    times[f"diffusion, {MANY_STEPS} steps, {NUM_IMAGES} at once"] = many
    return times


def measure_step(pipeline, device: str, runs: int) -> dict[str, float]:
    """Seconds that the UNet takes for a step of four faces, and not a face.

    A guided step is two passes in one batch. A distilled UNet needs one; its own two are measured
    beside it.
    """
    import torch

    unet, projection = pipeline.unet, pipeline.embedding_projection
    told = unet.config.time_cond_proj_dim
    side, channels = unet.config.sample_size, unet.config.in_channels

    def step(rows: int) -> Callable[[], None]:
        noisy = torch.randn(rows, channels, side, side, device=device)
        tokens = projection.unconditional(rows)
        scale = None if told is None else torch.zeros(rows, told, device=device)

        @torch.no_grad()
        def run():
            unet(noisy, 500, encoder_hidden_states=tokens, timestep_cond=scale).sample[0, 0].cpu()

        return run

    two = median_seconds(step(2 * NUM_IMAGES), runs)
    times = {f"a guided step for {NUM_IMAGES} faces, two passes": two}
    if told is not None:
        one = median_seconds(step(NUM_IMAGES), runs)
        times[f"a distilled step for {NUM_IMAGES} faces, one pass"] = one
    return times


def measure_teacher(device: str, runs: int) -> dict[str, float]:
    """Seconds a face of dlib's own network and of the torch module, at each batch size."""
    import dlib
    import torch

    from dataset_scripts.faces import get_recogniser
    from modeling_speech2face.modeling_face_recogniser import installed_weights

    theirs = dlib.face_recognition_model_v1(str(installed_weights()))
    ours = get_recogniser("dlib", device=device)
    chips = np.random.default_rng(0).integers(0, 256, (max(TEACHER_BATCHES), 150, 150, 3), np.uint8)
    pixels = torch.tensor(chips, device=device).permute(0, 3, 1, 2).float() / 255

    def with_gradients(faces: "torch.Tensor") -> Callable[[], None]:
        def run():
            leaf = faces.clone().requires_grad_()
            ours.network(leaf).sum().backward()
            leaf.grad[0, 0, 0, 0].item()

        return run

    times = {}
    for batch in TEACHER_BATCHES:
        some = chips[:batch]
        for name, embed in (
            ("dlib", lambda some=some: theirs.compute_face_descriptor(list(some))),
            ("torch", lambda some=some: ours.embed(some)),
            ("torch, with gradients", with_gradients(pixels[:batch])),
        ):
            times[f"teacher, {name}, batch {batch}"] = median_seconds(embed, runs) / batch
    return times


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", help="folder or Hub name; default: the bundled weights")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--runs", type=int, default=5, help="of each, after one to warm up")
    options = parser.parse_args(arguments)

    import torch

    from modeling_speech2face import Speech2FacePipeline

    if options.checkpoint:
        pipeline = Speech2FacePipeline.from_pretrained(options.checkpoint)
    else:
        pipeline = Speech2FacePipeline.from_demo()
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(options.device)
    print(f"a face on {options.device}, {torch.get_num_threads()} threads, ", end="")
    print(f"medians of {options.runs} runs")
    for measured in (
        measure_decoders(pipeline, options.device, options.runs),
        measure_step(pipeline, options.device, options.runs),
        measure_teacher(options.device, options.runs),
    ):
        for name, seconds in measured.items():
            print(f"{name:44} {1000 * seconds:8.1f} ms", flush=True)


if __name__ == "__main__":
    main()
