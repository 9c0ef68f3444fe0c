"""The truth behind a cast member's pictures: the face alone, frontal, neutral, evenly lit."""

from functools import lru_cache

import numpy as np

from dataset_scripts.faces import ALIGNED_SIZE, align_face, align_points

from .backgrounds import Background
from .frames import Camera, Clothes, Frame, Light
from .traits import Traits

DRAWN_SIZE = 448  # pixels; the face is then cut out of it without enlarging it
# The aligner's five points: outer and inner corner of each eye, and the base of the nose.
FIVE_OF_68 = (45, 42, 36, 39, 33)

# Light from everywhere, a little more from the front; a grey wall, a grey shirt; no noise.
NORMALIZED_FRAME = Frame(
    yaw=0.0,
    pitch=0.0,
    roll=0.0,
    expression={},
    light=Light(
        key_direction=(0.0, 0.25, 0.968),
        key_colour=(0.35, 0.35, 0.35),
        fill_direction=(0.0, -0.2, 0.98),
        fill_colour=(0.12, 0.12, 0.12),
        sky=(0.55, 0.55, 0.55),
        ground=(0.45, 0.45, 0.45),
    ),
    background=Background((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), kind="plain", blur=0.0, seed=0),
    clothes=Clothes((0.35, 0.35, 0.35), front_y=0.705, back_y=0.747, half_width=0.085, collar=0.01),
    camera=Camera(
        distance=1.2, head_share=0.57, shift_x=0.0, shift_y=0.0, blur=0.0, noise=0.0, contrast=1.0
    ),
    seed=0,
)


def normalized_face(traits: Traits) -> tuple[np.ndarray, np.ndarray]:
    """A person's face without pose, expression, light or surroundings.

    Args:
        traits: who it is.

    Returns:
        The face (224, 224, 3) uint8, aligned by the corners of its eyes and the base of its nose,
        and its landmarks (68, 2) float32, pixels in it.

    Raises:
        RuntimeError: if no OpenGL context can be made.
    """
    renderer = _renderer()
    landmarks = renderer.landmarks(traits, NORMALIZED_FRAME)  # (68, 2)
    picture = renderer.render(traits, NORMALIZED_FRAME)
    five = landmarks[list(FIVE_OF_68)]
    return align_face(picture, five, ALIGNED_SIZE), align_points(landmarks, five, ALIGNED_SIZE)


@lru_cache(maxsize=1)
def _renderer():
    from .renderer import FaceRenderer

    return FaceRenderer(DRAWN_SIZE)
