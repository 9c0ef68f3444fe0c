"""Where on the cast's head the 68 landmarks of a face stand, which the geometry knows exactly."""

import numpy as np

from .geometry import BODY, HeadTopology

# The landmarks of iBUG 300-W on the average head, millimetres (x, y, z); the half on the viewer's
# left and what lies in the middle. The other half is its mirror.
LEFT_LANDMARKS = {
    # the jaw, from beside the eye down to the chin
    0: (-74.5, 903.0, 68.0),
    1: (-72.5, 885.0, 75.0),
    2: (-68.0, 865.0, 95.0),
    3: (-64.0, 848.0, 95.0),
    4: (-58.0, 828.5, 102.0),
    5: (-48.0, 812.5, 113.0),
    6: (-33.0, 800.0, 130.0),
    7: (-18.5, 790.0, 138.5),
    8: (0.0, 787.0, 143.0),
    # the brow of a face between man and woman, from its tail to its head
    17: (-54.0, 919.9, 136.0),
    18: (-43.0, 926.2, 147.0),
    19: (-32.5, 927.0, 152.5),
    20: (-22.0, 925.7, 155.5),
    21: (-11.0, 922.9, 156.0),
    # the ridge of the nose from its root to its tip, then its base from the nostril to the middle
    27: (0.0, 902.5, 154.0),
    28: (0.0, 889.5, 159.0),
    29: (0.0, 878.0, 166.5),
    30: (0.0, 866.0, 174.0),
    31: (-12.6, 858.2, 158.6),
    32: (-5.5, 855.7, 163.0),
    33: (0.0, 855.3, 167.0),
    # the eye: outer corner, upper lid, inner corner, lower lid
    36: (-44.3, 904.7, 142.0),
    37: (-35.6, 908.3, 147.2),
    38: (-27.5, 907.8, 147.6),
    39: (-18.0, 901.6, 144.6),
    40: (-28.2, 897.5, 145.8),
    41: (-36.2, 897.8, 145.4),
    # the lips' outline: corner, upper lip, then the lower lip from the middle back to the corner
    48: (-23.6, 831.8, 152.5),
    49: (-14.8, 837.7, 161.7),
    50: (-6.2, 841.2, 166.0),
    51: (0.0, 839.7, 167.0),
    57: (0.0, 818.4, 161.0),
    58: (-6.6, 818.8, 160.2),
    59: (-16.1, 822.6, 157.2),
    # where the lips meet: corner, upper lip, lower lip
    60: (-19.5, 832.3, 155.5),
    61: (-6.0, 832.2, 159.8),
    62: (0.0, 831.9, 160.1),
    66: (0.0, 829.9, 160.7),
    67: (-6.0, 830.2, 160.4),
}
MIRRORED = {
    **{n: 16 - n for n in range(8)},
    **{n: 43 - n for n in range(17, 22)},
    **{31: 35, 32: 34},
    **{36: 45, 37: 44, 38: 43, 39: 42, 40: 47, 41: 46},
    **{48: 54, 49: 53, 50: 52, 58: 56, 59: 55},
    **{60: 64, 61: 63, 67: 65},
}


def landmark_vertices(topology: HeadTopology) -> np.ndarray:
    """The fine head's vertices (68,) that the landmarks stand on, in the order of iBUG 300-W."""
    places = np.zeros((68, 3))
    for number, (x, y, z) in LEFT_LANDMARKS.items():
        places[number] = (x, y, z)
        if number in MIRRORED:
            places[MIRRORED[number]] = (-x, y, z)
    skin = np.flatnonzero((topology.part == BODY) & (topology.inner_mouth < 0.3))
    distances = topology.canonical[skin][None] - places[:, None] / 1000  # (68, skin, 3)
    return skin[np.linalg.norm(distances, axis=2).argmin(1)]
