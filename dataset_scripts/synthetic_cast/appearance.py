"""The surface of a cast member: skin, brows, beard shadow, lips, marks of age, as one texture.

The texture is a cylinder around the head: u is the angle from straight ahead, v the height on the
average head. Features are painted where they lie on the average head and follow every shape.
"""

from functools import lru_cache

import numpy as np

from .geometry import BODY, HeadTopology
from .traits import BEARDS, Traits

WIDTH, HEIGHT = 512, 400
MAX_ANGLE = np.radians(115)  # texture u = 0 and 1
LOW_Y, HIGH_Y = 0.73, 1.03  # metres, texture v = 0 and 1
AXIS_Z = 0.06  # metres, the cylinder's axis

SKIN_TONES = (  # sRGB by melanin, evenly spaced from 0 to 1
    (243, 210, 192),
    (233, 192, 165),
    (214, 166, 133),
    (186, 136, 102),
    (150, 103, 74),
    (112, 74, 53),
    (78, 51, 39),
)
HAIR_COLOURS = {
    "black": (24, 20, 19),
    "dark_brown": (48, 33, 25),
    "brown": (86, 58, 38),
    "auburn": (112, 55, 30),
    "blond": (178, 138, 86),
}
GREY_HAIR = (176, 172, 168)
EYE_COLOURS = {
    "brown": (78, 46, 24),
    "hazel": (116, 84, 42),
    "green": (92, 116, 72),
    "blue": (84, 128, 172),
    "grey": (124, 136, 144),
}
LIPSTICKS = (
    *((176, 52, 60), (196, 84, 98), (152, 54, 76), (188, 96, 84), (168, 78, 74)),
    *((192, 112, 102), (200, 116, 122), (160, 92, 84)),
)


def cylinder_uv(canonical: np.ndarray) -> np.ndarray:
    """Return texture coordinates (V, 2) in 0 to 1 of points (V, 3) on the average head."""
    angle = np.arctan2(canonical[:, 0], canonical[:, 2] - AXIS_Z)
    v = (canonical[:, 1] - LOW_Y) / (HIGH_Y - LOW_Y)
    return np.stack([angle / MAX_ANGLE / 2 + 0.5, v], 1).astype(np.float32)


def skin_colour(traits: Traits) -> np.ndarray:
    """Return the person's base skin colour, sRGB (3,) in 0 to 1."""
    position = np.linspace(0, 1, len(SKIN_TONES))
    table = np.array(SKIN_TONES) / 255
    base = np.array([np.interp(traits.skin_tone, position, table[:, k]) for k in range(3)])
    return np.clip(base * (1 + traits.skin_hue * np.array([-0.015, 0.02, -0.07])), 0, 1)


def exposure(traits: Traits) -> float:
    """Return by how much more light a camera lets in, which measures the face, for darker skin."""
    luminance = float(skin_colour(traits) ** 2.2 @ (0.2126, 0.7152, 0.0722))
    return (0.38 / luminance) ** 0.22


def hair_colour(traits: Traits) -> np.ndarray:
    """Return the person's hair colour before grey strands are drawn, sRGB (3,) in 0 to 1."""
    rng = np.random.default_rng([traits.seed, 11])
    base = np.array(HAIR_COLOURS[traits.hair_colour]) / 255
    return np.clip(base * rng.uniform(0.8, 1.25) * rng.uniform(0.96, 1.04, 3), 0, 1)


def greyed(colour: np.ndarray, share: float) -> np.ndarray:
    """Return a hair colour mixed with grey by the share of grey hair."""
    return colour * (1 - share) + np.array(GREY_HAIR) / 255 * share


class SkinPainter:
    """Paints one texture a person; what all persons share is computed once."""

    def __init__(self, topology: HeadTopology) -> None:
        self.x, self.y, self.z = _canonical_map(topology)
        self.side = np.abs(self.x)
        self._noise = _noise_bank()
        self._blobs: dict[tuple, np.ndarray] = {}
        self._beards = {k: beard_region(k, self.side, self.y, self.z) for k in BEARDS}
        angle = np.abs(np.linspace(-1, 1, WIDTH))[None]
        self._fade = np.clip((self.y - 0.735) / 0.03, 0, 1) * np.clip(
            (1 - angle) / 0.08, 0, 1
        ).astype(np.float32)

    def paint(self, traits: Traits) -> np.ndarray:
        """Return the texture (HEIGHT, WIDTH, 4) uint8: sRGB, and the relief in the last channel."""
        rng = np.random.default_rng([traits.seed, 12])
        skin = skin_colour(traits).astype(np.float32)
        melanin = traits.skin_tone
        male = traits.masculinity
        # Lines are drawn deeper in coarse skin.
        old = float(np.clip((traits.age - 28) / 47, 0, 1) * (0.62 + 0.38 * male))
        colour = np.empty((HEIGHT, WIDTH, 3), np.float32)
        colour[:] = skin
        # 1. Tone: blotches, redness of cheeks, nose and ears, darker round the eyes.
        blotch = self._shifted(0, rng)
        colour *= 1 + (0.022 + 0.012 * male) * blotch[..., None]
        red = _rgb(0.02, -0.06, -0.05) * rng.uniform(0.3, 1.4)
        flush = self._blob(0.045, 0.862, 0.022, 0.018) + 0.8 * self._blob(0.0, 0.866, 0.016, 0.014)
        colour *= 1 + (flush * (1 - 0.6 * melanin))[..., None] * red
        hollow = self._blob(0.030, 0.889, 0.017, 0.006) + 0.5 * self._blob(
            0.018, 0.905, 0.008, 0.012
        )
        colour *= 1 - (hollow * rng.uniform(0.05, 0.13 + 0.08 * old))[..., None] * _rgb(
            0.8, 1.1, 0.9
        )
        # 2. Freckles of light skin, spots of old skin, fine noise.
        marks = np.zeros_like(self.x)
        if melanin < 0.4 and rng.random() < 0.3:
            number = int(rng.uniform(60, 320))
            self._dots(marks, rng, number, (0.028, 0.874, 0.030, 0.016), (0.0005, 0.0010), 0.30)
        number = int(rng.uniform(0, 45) * old)
        self._dots(marks, rng, number, (0.045, 0.90, 0.030, 0.045), (0.0008, 0.0026), 0.22)
        moles = int(rng.integers(0, 6))
        self._dots(marks, rng, moles, (0.040, 0.86, 0.030, 0.045), (0.0007, 0.0013), 1.0)
        colour *= 1 - np.clip(0.55 * marks, 0, 0.7)[..., None] * _rgb(0.6, 0.95, 1.1)
        colour *= 1 + (0.008 + 0.008 * male + 0.006 * old) * self._shifted(1, rng)[..., None]
        if old > 0.05:
            lines = np.clip(self._wrinkles(old, np.random.default_rng([traits.seed, 14])), 0, 1)
            colour *= 1 - (0.30 * lines)[..., None] * _rgb(0.75, 1.0, 1.05)
            # Old skin is less even and less red.
            colour *= 1 + 0.05 * old * blotch[..., None]
        # 3. Beard: the shadow even of a shaven man, then the kinds of beard.
        shadow = self.beard_cover(traits) * self._beard_shadow(traits, rng)
        shadow = shadow * (1 + 0.12 * self._shifted(1, rng))
        root = greyed(hair_colour(traits), traits.hair_grey).astype(np.float32)
        tint = 0.55 * root + 0.45 * skin * _rgb(0.50, 0.56, 0.62)
        colour += np.clip(shadow, 0, 1)[..., None] * (tint - colour)
        # 4. Lids and lash lines, blusher.
        self._make_up(colour, traits, rng)
        # 5. The brows.
        self._brows(colour, traits)
        relief = self._relief(traits, old, rng)
        # The cylinder ends below the jaw and behind the ears: nothing to stretch there.
        colour = skin + self._fade[..., None] * (colour - skin)
        relief = 0.5 + self._fade * (relief - 0.5)
        rgb = np.clip(colour, 0, 1)
        return (np.concatenate([rgb, relief[..., None]], -1) * 255 + 0.5).astype(np.uint8)

    def beard_cover(self, traits: Traits) -> np.ndarray:
        """Return where this kind of beard grows, (HEIGHT, WIDTH) in 0 to 1."""
        return self._beards[traits.beard]

    def _beard_shadow(self, traits: Traits, rng: np.random.Generator) -> float:
        if traits.beard != "none":
            return {"stubble": 0.42}.get(traits.beard, 0.82)
        if traits.gender != "male":
            return 0.0
        darkness = max(0.65, 1 - hair_colour(traits).mean())
        return float(rng.uniform(0.16, 0.32) * darkness * (1 - 0.4 * traits.hair_grey))

    def _make_up(self, colour, traits: Traits, rng: np.random.Generator) -> None:
        female = 1 - traits.masculinity
        lid = self._blob(0.032, 0.911, 0.017, 0.006)
        shade = _rgb(0.45, 0.36, 0.38) if rng.random() < 0.6 else _rgb(0.5, 0.4, 0.3)
        strength = 0.5 * traits.make_up * lid
        colour += strength[..., None] * (colour * shade - colour)
        blush = self._blob(0.055, 0.868, 0.018, 0.016)
        amount = 0.16 * traits.make_up + 0.06 * female
        colour *= 1 + (amount * blush)[..., None] * _rgb(0.15, -0.35, -0.25)

    def _brows(self, colour, traits: Traits) -> None:
        """The skin under the brows, which the hairs of `hair` stand on; pencilled with make-up."""
        along, away = brow_line(traits, self.side, self.y)
        strokes = (
            np.exp(-((0.95 * away) ** 4)) * _step(along + 0.02, 0.05) * _step(0.97 - along, 0.12)
        )
        strokes = strokes * (0.16 + 0.22 * traits.brow_thickness + 0.25 * traits.make_up)
        grey = 0.6 * traits.hair_grey
        dark = np.minimum(greyed(hair_colour(traits) * 0.75, grey), skin_colour(traits) * 0.62)
        dark = dark.astype(np.float32)
        colour += strokes[..., None] * (dark - colour)

    def _relief(self, traits: Traits, old: float, rng: np.random.Generator) -> np.ndarray:
        """Return the height of wrinkles and coarse skin, 0.5 = flat."""
        relief = np.zeros_like(self.x)
        if old > 0.05:
            relief -= self._wrinkles(old, np.random.default_rng([traits.seed, 14]))
        coarse = 0.03 + 0.06 * traits.masculinity + 0.08 * old
        relief += coarse * self._shifted(1, rng) * 0.5 + 0.05 * old * self._shifted(0, rng)
        return np.clip(0.5 + 0.35 * relief, 0, 1)

    def _wrinkles(self, old: float, rng: np.random.Generator) -> np.ndarray:
        """Return the depth of the wrinkles of a face, by how old (0 to 1) it is."""
        x, side, y = self.x, self.side, self.y
        bend = 0.002 * np.sin(x * 70 + rng.uniform(0, 6))
        depth = np.zeros_like(x)
        for height in (0.944, 0.955, 0.966, 0.977):
            line = y - height - bend + 2.0 * x**2
            reach = self._blob(0, height, 0.038, 0.02)
            depth += 0.8 * old * rng.uniform(0.3, 1) * reach * _line(line, 0.0013)
        fold = side - 0.0215 - 0.42 * (0.858 - y)
        depth += 1.1 * _line(fold, 0.0019) * self._blob(0.03, 0.842, 0.03, 0.016)
        for k in range(3):
            crow = (y - 0.903) - (k - 1) * (0.45 * (side - 0.048) + 0.001)
            depth += 0.8 * _line(crow, 0.0010) * self._blob(0.060, 0.903, 0.008, 0.012)
        bag = y - 0.8865 + 15 * (side - 0.03) ** 2
        depth += 0.9 * _line(bag, 0.0017) * self._blob(0.029, 0.889, 0.015, 0.008)
        frown = side - 0.006
        depth += 0.7 * old * _line(frown, 0.0011) * self._blob(0.006, 0.928, 0.006, 0.010)
        marionette = side - 0.029 - 0.15 * (0.826 - y)
        depth += 0.8 * _line(marionette, 0.0017) * self._blob(0.03, 0.815, 0.02, 0.011)
        return old * depth

    def _blob(self, x: float, y: float, width: float, height: float) -> np.ndarray:
        """Return a soft spot on both sides of the face; the same few are painted on everyone."""
        key = (x, y, width, height)
        if key not in self._blobs:
            across = np.exp(-(((self.side - x) / width) ** 2))
            self._blobs[key] = across * np.exp(-(((self.y - y) / height) ** 2))
        return self._blobs[key]

    def _dots(self, marks, rng, number: int, where: tuple, sizes: tuple, strength: float) -> None:
        """Add round spots around (|x|, y), spread by (x, y), of radii in metres, to `marks`."""
        x0, y0, width, height = where
        x = rng.choice((-1, 1), number) * x0 + width * rng.standard_normal(number)
        y = y0 + height * rng.standard_normal(number)
        radius, depth = rng.uniform(*sizes, number), strength * rng.uniform(0.4, 1.0, number)
        rows = ((HIGH_Y - y) / (HIGH_Y - LOW_Y) * HEIGHT).astype(int)
        columns = np.abs(self.x[rows.clip(0, HEIGHT - 1)] - x[:, None]).argmin(1)
        for k in range(number):
            reach = int(3 * radius[k] / 0.0007) + 1  # texels
            here = np.s_[
                max(0, rows[k] - reach) : rows[k] + reach + 1,
                max(0, columns[k] - reach) : columns[k] + reach + 1,
            ]
            far = ((self.x[here] - x[k]) ** 2 + (self.y[here] - y[k]) ** 2) / radius[k] ** 2
            np.maximum(marks[here], depth[k] * np.exp(-(far**1.5)), out=marks[here])

    def _shifted(self, layer: int, rng: np.random.Generator) -> np.ndarray:
        noise = self._noise[layer]
        shift = rng.integers(0, noise.shape[0]), rng.integers(0, noise.shape[1])
        return np.roll(noise, shift, (0, 1))


def beard_region(kind: str, side: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Return where a beard grows (0 to 1) at points of the average head: |x|, y, z in metres."""
    # Upper border: from the sideburn in front of the ear along the cheek to the mouth's corner.
    border = np.interp(
        side, (0.0, 0.030, 0.045, 0.062, 0.072, 0.080), (0.853, 0.850, 0.836, 0.846, 0.885, 0.905)
    )
    full = _step(border - y, 0.006) * _step(y - 0.768, 0.010)
    full = full * _step(z - 0.045, 0.008)
    chin = _step(0.024 - side, 0.006) * _step(0.826 - y, 0.004) * _step(y - 0.776, 0.006)
    lip_gap = np.exp(-((side / 0.026) ** 2) - ((y - 0.829) / 0.0115) ** 2) > 0.5
    moustache = _step(0.034 - side, 0.005) * _step(0.857 - y - 0.10 * side, 0.003)
    moustache = moustache * _step(y - 0.8385 + 0.30 * side, 0.004)
    corner = _step(0.0055 - np.abs(side - 0.033), 0.004) * _step(0.842 - y, 0.005)
    corner = corner * _step(y - 0.79, 0.005)
    goatee = np.maximum(np.maximum(chin, moustache), corner)
    region = {"moustache": moustache, "goatee": goatee}.get(kind, np.maximum(full, moustache))
    return (region * ~lip_gap).astype(np.float32)


def brow_line(traits: Traits, side: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where points of the average head, |x| and y in metres, lie on a person's brow.

    Returns:
        How far along it (0: inner end, 1: tail), and how far above its middle, in half heights.
    """
    male, thick = traits.masculinity, traits.brow_thickness
    low, arch_shift = np.random.default_rng([traits.seed, 15]).normal(0, 0.0009, 2)
    low = low + 0.9250 - 0.0040 * male
    arch = 0.0020 + 0.0044 * (1 - male) + arch_shift
    inner, outer = 0.0125 - 0.0020 * male, 0.0545 + 0.002 * male
    along = (side - inner) / (outer - inner)
    peak = 0.60
    rise = np.where(along < peak, (peak - along) / peak, 1.7**0.5 * (along - peak) / (1 - peak))
    middle = low + arch * (1 - rise**2) - 0.0035 * np.clip(along - peak, 0, 1)
    half = 0.0017 + 0.0014 * thick + 0.0017 * male  # metres, at the inner third
    half = half * np.interp(along, (0, 0.15, 0.5, 1), (0.85, 1, 0.85, 0.35))
    return along, (y - middle) / half


def _canonical_map(topology: HeadTopology) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x, y, z (HEIGHT, WIDTH) of the average head's surface at each texel, row 0 on top."""
    from scipy.interpolate import NearestNDInterpolator
    from scipy.ndimage import uniform_filter

    keep = (topology.part == BODY) & (topology.inner_mouth < 0.3) & (topology.canonical[:, 1] > 0.7)
    points = topology.canonical[keep]
    uv = cylinder_uv(points)
    radius = np.hypot(points[:, 0], points[:, 2] - AXIS_Z)
    u, v = np.meshgrid((np.arange(WIDTH) + 0.5) / WIDTH, 1 - (np.arange(HEIGHT) + 0.5) / HEIGHT)
    r = NearestNDInterpolator(uv, radius)(u, v)
    r = uniform_filter(r, 7, mode="nearest")
    angle = (u - 0.5) * 2 * MAX_ANGLE
    x, z = r * np.sin(angle), AXIS_Z + r * np.cos(angle)
    y = LOW_Y + v * (HIGH_Y - LOW_Y)
    return x.astype(np.float32), y.astype(np.float32), z.astype(np.float32)


@lru_cache(maxsize=1)
def _noise_bank() -> tuple[np.ndarray, ...]:
    """Return two tileable noises of unit variance: blotches, grain."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(5)
    bank = []
    for sigma in (14, 0.9):
        noise = gaussian_filter(rng.normal(size=(HEIGHT, WIDTH)), sigma, mode="wrap")
        bank.append((noise / noise.std()).astype(np.float32))
    return tuple(bank)


def _rgb(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def _line(distance: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-((distance / width) ** 2))


def _step(distance: np.ndarray, soft: float) -> np.ndarray:
    return np.clip(0.5 + distance / soft / 2, 0, 1)


def lip_colour(traits: Traits) -> np.ndarray:
    """Return the lips' colour, sRGB (3,) in 0 to 1: redder than the skin, or painted."""
    rng = np.random.default_rng([traits.seed, 13])
    male = traits.masculinity
    natural = skin_colour(traits) * (
        np.array([0.88, 0.60, 0.63]) * (1 - male) + np.array([0.84, 0.77, 0.75]) * male
    )
    stick = np.array(LIPSTICKS[rng.integers(len(LIPSTICKS))]) / 255
    stick = stick * (1 - 0.45 * traits.skin_tone)
    amount = 0.75 * np.clip(1.3 * traits.make_up, 0, 1)
    return np.clip(natural * (1 - amount) + stick * amount, 0, 1)
