"""Hair and beards as many ribbons, grown step by step from roots on the skin.

A strand is a polyline that leaves the skin, is combed, falls, and is kept outside the head.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from .appearance import beard_region, brow_line, greyed, hair_colour, skin_colour
from .geometry import BODY, HeadTopology
from .traits import Traits

CENTRE = np.array([0.0, 0.915, 0.055], np.float32)  # metres, middle of the average head
POINTS = 9  # along a strand
DOWN = np.array([0.0, -1.0, 0.0], np.float32)


@dataclass(frozen=True)
class Strands:
    """Ribbons ready to draw.

    Attributes:
        points: (S, P, 3) float32, metres.
        widths: (S, P) float32, metres, full width.
        colours: (S, P, 3) float32, sRGB in 0 to 1.
        anchor: (S,) int32, the fine vertex a strand moves with, or -1 for the scalp.
        is_hair: (S,) bool, whether it is one of many, or part of glasses.
    """

    points: np.ndarray
    widths: np.ndarray
    colours: np.ndarray
    anchor: np.ndarray
    is_hair: np.ndarray


@dataclass(frozen=True)
class Cut:
    """How a hair cut grows: lengths in metres, weights of what bends a strand."""

    top: float
    sides: float
    strands: int
    width: float
    lift: float
    gravity: float
    volume: float


CUTS = {
    "shaved": Cut(0.0015, 0.0012, 0, 0.0012, 1.0, 0.0, 0.001),
    "buzz": Cut(0.006, 0.004, 9000, 0.0009, 0.9, 0.1, 0.002),
    "short": Cut(0.042, 0.016, 8000, 0.0011, 0.50, 0.12, 0.008),
    "side_parted": Cut(0.090, 0.022, 8000, 0.0012, 0.15, 0.55, 0.012),
    "curly": Cut(0.065, 0.040, 7000, 0.0013, 0.8, 0.05, 0.018),
    "bob": Cut(0.20, 0.13, 8500, 0.0014, 0.15, 1.0, 0.012),
    "long": Cut(0.38, 0.34, 9000, 0.0015, 0.15, 1.0, 0.010),
    "tied_back": Cut(0.16, 0.13, 8000, 0.0013, 0.05, 0.0, 0.006),
}
LOCKS = {"short": 22, "side_parted": 24, "curly": 22, "bob": 24, "long": 24}  # strands a lock
COMB_REACH = 0.055  # metres over which a strand keeps its combed direction before it falls


def joined(parts: Sequence[Strands]) -> Strands:
    """Return the strands of all parts, in their order."""
    names = [field.name for field in fields(Strands)]
    return Strands(*(np.concatenate([getattr(p, name) for p in parts]) for name in names))


class HairGrower:
    """Grows one person's hair; what all persons share is computed once."""

    def __init__(self, topology: HeadTopology, ears: np.ndarray) -> None:
        canonical = topology.canonical
        skin = (topology.part == BODY) & (topology.inner_mouth < 0.3)
        self._topology = topology
        self._build_radius_grid(canonical, skin & (ears < 0.3) & (canonical[:, 1] > 0.775))
        tri = topology.triangles
        ok = skin[tri].all(1) & (ears[tri].max(1) < 0.3) & (canonical[tri][:, :, 1].min(1) > 0.74)
        self._triangles = tri[ok]
        corners = canonical[self._triangles]
        edges = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        area = np.linalg.norm(edges, axis=1)
        self._area_sum = np.cumsum(area)
        middle = corners.mean(1)
        on_brow = (np.abs(np.abs(middle[:, 0]) - 0.033) < 0.028) & (middle[:, 2] > 0.10)
        on_brow &= np.abs(middle[:, 1] - 0.925) < 0.018
        self._brow_area_sum = np.cumsum(area * on_brow)

    def grow(self, traits: Traits, fine: np.ndarray, normals: np.ndarray) -> Strands:
        """Return hair and beard of a person whose head at rest is `fine` (V, 3)."""
        rng = np.random.default_rng([traits.seed, 21])
        radius = self._radius_grid(fine)
        parts = [self._scalp(traits, fine, normals, radius, rng)]
        parts.append(self._brows(traits, fine, normals, np.random.default_rng([traits.seed, 22])))
        if traits.beard in ("moustache", "goatee", "full"):
            parts.append(self._beard(traits, fine, normals, rng))
        return joined(parts)

    def _scalp(self, traits, fine, normals, radius, rng) -> Strands:
        cut = CUTS[traits.hair_cut]
        root, normal, on_average, _ = self._roots(
            cut.strands * 3, fine, normals, rng, self._area_sum
        )
        grows = rng.random(len(root)) < scalp_cover(on_average, traits)
        root, normal, on_average = (a[grows][: cut.strands] for a in (root, normal, on_average))
        if not len(root):
            return _no_strands()
        style = _Style(traits, cut, rng)
        length = style.lengths(on_average, rng)
        points, whole = style.grow(root, normal, on_average, length, radius, self, rng)
        points = points[whole]
        lock = None
        if traits.hair_cut in LOCKS:
            points, lock = _gathered(points, LOCKS[traits.hair_cut], rng)
        anchor = np.full(len(points), -1, np.int32)
        colour, grey = hair_colour(traits), traits.hair_grey
        return _finish(points, anchor, colour, grey, cut.width, rng, lock)

    def _brows(self, traits, fine, normals, rng) -> Strands:
        """Hairs that rise at the inner end, lie along the brow, and fall at its tail."""
        male, thick = traits.masculinity, traits.brow_thickness
        root, normal, at, anchor = self._roots(9000, fine, normals, rng, self._brow_area_sum)
        along, away = brow_line(traits, np.abs(at[:, 0]), at[:, 1])
        # Dense in the middle, ragged at the rims.
        grows = rng.random(len(root)) < np.exp(-(np.abs(away) ** 3)) * (0.35 + 0.5 * thick)
        grows &= (along > -0.02) & (along < 1.02)
        number = int(230 + 240 * thick + 70 * male)
        root, normal, anchor, along, away, at = (
            a[grows][:number] for a in (root, normal, anchor, along, away, at)
        )
        lean = np.interp(along, (0, 0.15, 0.5, 1), (1.2, 0.7, 0.15, -0.35))
        lean = lean - 0.35 * away + rng.normal(0, 0.14, len(root))
        outward = np.sign(at[:, 0])
        direction = np.stack([outward * np.cos(lean), np.sin(lean), 0 * lean], 1)
        direction = _unit(direction - (direction * normal).sum(1, keepdims=True) * normal)
        direction = _unit(direction + 0.22 * normal)
        length = (0.0052 + 0.0028 * thick + 0.001 * male) * rng.uniform(0.6, 1.15, len(root))
        length = length * np.interp(along, (0, 0.2, 1), (0.75, 1, 0.8))
        t = np.linspace(0, 1, POINTS)[None, :, None]
        points = root[:, None] + t * length[:, None, None] * direction[:, None]
        points = points - 0.15 * t**2 * length[:, None, None] * normal[:, None]
        grey = 0.6 * traits.hair_grey
        colour = np.minimum(greyed(hair_colour(traits) * 0.8, grey), skin_colour(traits) * 0.6)
        colour = colour + 0.06 * (1 - male) * (skin_colour(traits) * 0.7 - colour)  # finer hairs
        width = 0.00055 + 0.0001 * thick
        return _finish(points.astype(np.float32), anchor, colour, 0.0, width, rng)

    def _beard(self, traits, fine, normals, rng) -> Strands:
        root, normal, on_average, anchor = self._roots(80000, fine, normals, rng, self._area_sum)
        side, y, z = np.abs(on_average[:, 0]), on_average[:, 1], on_average[:, 2]
        grows = rng.random(len(root)) < beard_region(traits.beard, side, y, z)
        number = {"moustache": 1000, "goatee": 2400, "full": 6500}[traits.beard]
        root, normal, anchor = (a[grows][:number] for a in (root, normal, anchor))
        length = {"moustache": 0.005, "goatee": 0.006, "full": 0.007}[traits.beard]
        length = length * rng.uniform(0.6, 1.3) * rng.uniform(0.6, 1.2, len(root))
        direction = normal * 0.5 + DOWN * 0.9 + rng.normal(0, 0.22, root.shape)
        outward = np.sign(root[:, :1]) * np.array([0.35, 0, 0]) * (root[:, 1:2] > 0.83)
        direction = _unit(direction + outward).astype(np.float32)
        t = np.linspace(0, 1, POINTS)[None, :, None]
        points = root[:, None] + t * length[:, None, None] * direction[:, None]
        points = points + (t**2) * 0.3 * length[:, None, None] * DOWN
        colour, grey = hair_colour(traits), traits.hair_grey
        return _finish(points.astype(np.float32), anchor, colour, grey, 0.0006, rng)

    def _roots(self, number, fine, normals, rng, area_sum):
        """Return positions, normals, positions on the average head, and nearest vertices."""
        which = np.searchsorted(area_sum, rng.random(number) * area_sum[-1])
        which = which.clip(0, len(area_sum) - 1)
        weights = rng.dirichlet((1, 1, 1), number).astype(np.float32)[:, :, None]
        corners = self._triangles[which]
        mix = [(a[corners] * weights).sum(1) for a in (fine, normals, self._topology.canonical)]
        return mix[0], _unit(mix[1]), mix[2], corners[:, 0].astype(np.int32)

    def _build_radius_grid(self, canonical, usable) -> None:
        from scipy.spatial import cKDTree

        self._usable = np.flatnonzero(usable)
        rows, columns = 40, 80
        polar = (np.arange(rows) + 0.5) / rows * np.pi
        azimuth = (np.arange(columns) + 0.5) / columns * 2 * np.pi - np.pi
        p, a = np.meshgrid(polar, azimuth, indexing="ij")
        grid = np.stack([np.sin(p) * np.sin(a), np.cos(p), np.sin(p) * np.cos(a)], -1)
        directions = _unit(canonical[self._usable] - CENTRE)
        distance, self._neighbours = cKDTree(directions).query(grid.reshape(-1, 3), k=6)
        weight = 1 / (distance + 0.02)
        self._grid_weight = (weight / weight.sum(1, keepdims=True)).astype(np.float32)
        self._grid_shape = rows, columns

    def _radius_grid(self, fine: np.ndarray) -> np.ndarray:
        radius = np.linalg.norm(fine[self._usable] - CENTRE, axis=1)
        return (radius[self._neighbours] * self._grid_weight).sum(1).reshape(self._grid_shape)

    def push_out(self, points, radius, gap) -> np.ndarray:
        """Move points (S, 3) that are nearer to the head than `gap` (S,) metres outwards."""
        offset = points - CENTRE
        distance = np.linalg.norm(offset, axis=1)
        polar = np.arccos(np.clip(offset[:, 1] / distance, -1, 1)) / np.pi
        azimuth = np.arctan2(offset[:, 0], offset[:, 2]) / (2 * np.pi) + 0.5
        rows, columns = radius.shape
        r, c = polar * rows - 0.5, azimuth * columns - 0.5
        r0, c0 = np.floor(r).astype(int), np.floor(c).astype(int)
        fr, fc = (r - r0)[:, None], (c - c0)[:, None]
        top, bottom = r0.clip(0, rows - 1), (r0 + 1).clip(0, rows - 1)
        left, right = c0 % columns, (c0 + 1) % columns
        surface = (
            radius[top, left] * ((1 - fr) * (1 - fc))[:, 0]
            + radius[top, right] * ((1 - fr) * fc)[:, 0]
            + radius[bottom, left] * (fr * (1 - fc))[:, 0]
            + radius[bottom, right] * (fr * fc)[:, 0]
        )
        # Below the skull there is a neck, much narrower than the rays' last hit.
        skull = np.clip((points[:, 1] - 0.79) / 0.03, 0, 1)
        wanted = np.maximum(distance, (surface + gap) * skull)
        out = CENTRE + offset * (wanted / distance)[:, None]
        neck = np.array([0.0, 0.0, 0.02], np.float32)
        flat = (out - neck) * np.array([1, 0, 1], np.float32)
        around = np.linalg.norm(flat, axis=1)
        push = np.where(points[:, 1] < 0.80, np.maximum(0.066 - around, 0), 0)
        return out + flat / np.maximum(around, 1e-4)[:, None] * push[:, None]


class _Style:
    """How one person wears a cut: parting, comb direction, curl."""

    def __init__(self, traits: Traits, cut: Cut, rng: np.random.Generator) -> None:
        self.traits, self.cut = traits, cut
        self.kind = traits.hair_cut
        self.part_x = float(rng.choice((-1, 1)) * rng.uniform(0.018, 0.04))
        if self.kind in ("bob", "long"):
            self.part_x = float(rng.normal(0, 0.018))
        knots = ((0.0, 0.92, -0.075), (0.0, 0.97, -0.075), (0.0, 1.018, -0.01))
        self.knot = np.array(knots[rng.integers(3)], np.float32)  # low, middle, on top
        self.fringe = self.kind in ("bob", "long") and rng.random() < 0.3
        self.wave = float(rng.uniform(0, 1)) if self.kind != "curly" else 1.0
        self.scale = float(rng.uniform(0.75, 1.25))
        self.swept = float(rng.uniform(-1, 1))
        self.forward = float(rng.uniform(-0.2, 1.0))
        african = traits.ancestry[0]
        self.coil = float(np.clip(african * 1.2, 0, 1)) if self.kind in ("short", "curly") else 0.0

    def lengths(self, at: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        top = np.clip((at[:, 1] - 0.93) / 0.045, 0, 1)
        length = (self.cut.sides + (self.cut.top - self.cut.sides) * top) * self.scale
        if self.fringe:
            length = np.where(self._is_fringe(at), 0.06, length)
        return (length * rng.uniform(0.72, 1.12, len(at))).astype(np.float32)

    def _is_fringe(self, at: np.ndarray) -> np.ndarray:
        return self.fringe & (at[:, 2] > 0.10) & (np.abs(at[:, 0]) < 0.045)

    def comb(self, at: np.ndarray, normal: np.ndarray) -> np.ndarray:
        """Return the direction (S, 3) in which hair rooted at `at` is combed."""
        x, z = at[:, 0], at[:, 2]
        away = np.tanh((x - self.part_x) / 0.012)
        zero = np.zeros_like(x)
        if self.kind == "side_parted":
            direction = np.stack([away * 1.2, zero + 0.1, -0.1 - 0.3 * (z < 0.03)], 1)
        elif self.kind in ("bob", "long"):
            back = np.where(np.abs(x) < 0.02, -0.35, -0.15)
            direction = np.stack([away * 0.9, zero - 0.35, back + zero], 1)
            if self.fringe:
                front = self._is_fringe(at)
                straight = np.stack([zero + 0.3 * self.swept, zero - 0.3, zero + 1.0], 1)
                direction = np.where(front[:, None], straight, direction)
        elif self.kind == "tied_back":
            direction = _unit(self.knot - at)
        elif self.kind == "short":
            direction = np.stack([zero + 0.5 * self.swept, zero - 0.15, zero + self.forward], 1)
        else:
            direction = np.zeros_like(at)
        along = direction - (direction * normal).sum(1, keepdims=True) * normal
        return along.astype(np.float32)

    def grow(self, root, normal, at, length, radius, grower: HairGrower, rng):
        cut, number = self.cut, len(root)
        clump = rng.normal(0, 1, (64, 3)).astype(np.float32)
        cells = (np.floor(at / 0.016) @ np.array([1, 7, 31])).astype(int) % 64
        noise = 0.75 * clump[cells] + 0.6 * rng.normal(0, 1, (number, 3)).astype(np.float32)
        messy = {"short": 0.30, "side_parted": 0.14, "curly": 0.4, "buzz": 0.25}.get(
            self.kind, 0.10
        )
        comb = self.comb(at, normal)
        direction = _unit(cut.lift * normal + 0.8 * comb + messy * noise)
        layer = rng.random(number).astype(np.float32) ** 0.7
        gap = cut.volume * self.scale * (0.25 + 0.75 * layer)
        top = np.clip((at[:, 1] - 0.90) / 0.08, 0.25, 1)
        if self.kind in ("bob", "long", "side_parted"):  # flat at the parting
            top = top * np.clip(np.abs(at[:, 0] - self.part_x) / 0.035, 0.15, 1)
        # Short steps near the root, where a strand bends, longer ones where it hangs.
        share = np.diff(np.linspace(0, 1, POINTS) ** 1.5)
        side = np.where(
            np.abs(at[:, 0]) < 0.004, 1, np.sign(at[:, 0] - self.part_x * (at[:, 2] > 0))
        )
        points = np.empty((number, POINTS, 3), np.float32)
        points[:, 0] = p = root - 0.001 * normal
        phase = rng.uniform(0, 2 * np.pi, number).astype(np.float32)
        is_fringe = self._is_fringe(at)
        travelled = np.zeros((number, 1), np.float32)
        for k in range(1, POINTS):
            t = k / (POINTS - 1)
            combed = np.exp(-travelled / COMB_REACH)
            pull = cut.gravity * (1 - 0.7 * combed) * DOWN
            bend = comb * combed + pull + 0.12 * messy * noise
            inertia = 0.35 if cut.gravity > 0.5 else 0.9
            direction = _unit(inertia * direction + 0.7 * bend)
            if self.kind == "tied_back":
                direction = _unit(self.knot - p)
            step = (length * share[k - 1])[:, None]
            travelled = travelled + step
            p = p + step * direction
            if cut.gravity > 0.9:
                beside = _beside_the_face(p, side, radius_of_face=0.062)
                p = np.where(is_fringe[:, None], p, beside)
            moved = grower.push_out(p, radius, gap * min(1.0, 3.0 * t) * top)
            direction = _unit(0.6 * direction + 0.4 * _unit(moved - points[:, k - 1]))
            p = moved
            points[:, k] = p
        # A strand that had to jump, from one side of the face to the other, is pulled out.
        jump = np.linalg.norm(np.diff(points, axis=1), axis=-1)
        whole = (jump < 0.012 + 2.5 * length[:, None] * share[None]).all(1)
        across_face = np.abs(np.diff(points[..., 0], axis=1)) > 0.028
        along = _unit(np.diff(points, axis=1))
        whole &= ((along[:, 1:] * along[:, :-1]).sum(-1) > -0.3).all(1)
        whole &= ~(across_face & (points[:, 1:, 2] > 0.09) & (points[:, 1:, 1] < 0.985)).any(1)
        if self.kind == "tied_back":
            points[: number // 5] = self._bun(number // 5, rng)
            whole[: number // 5] = True
        return self._curl(points, normal, phase, rng), whole

    def _bun(self, number: int, rng) -> np.ndarray:
        """Return strands wound around a ball at the knot."""
        size = 0.026 * self.scale
        pole = _unit(rng.normal(0, 1, (number, 3)))
        start = _unit(np.cross(pole, rng.normal(0, 1, (number, 3))))
        other = np.cross(pole, start)
        turn = np.linspace(0, 0.9 * np.pi, POINTS)[None, :, None]
        ring = np.cos(turn) * start[:, None] + np.sin(turn) * other[:, None]
        outside = self.knot + 0.6 * size * _unit(self.knot - CENTRE)
        layer = size * rng.uniform(0.85, 1.0, (number, 1, 1))
        return (outside + layer * ring).astype(np.float32)

    def _curl(self, points, normal, phase, rng) -> np.ndarray:
        """Add waves or curls across each strand."""
        t = np.linspace(0, 1, POINTS, dtype=np.float32)[None]
        if self.kind in ("buzz", "tied_back"):
            return points
        if self.kind == "curly" or self.coil > 0.4:
            radius, turns = 0.0055 if self.kind == "curly" else 0.0035, 1.8
        else:
            radius, turns = 0.008 * self.wave**2 if self.kind in ("bob", "long") else 0.0012, 2.4
        swing = phase[:, None] * (1.0 if self.kind == "curly" else 0.35) + 2 * np.pi * turns * t
        tangent = _unit(points[:, -1] - points[:, 0])
        across = _unit(np.cross(tangent, normal + 1e-3))
        other = np.cross(tangent, across)
        bend = (
            np.cos(swing)[..., None] * across[:, None] + np.sin(swing)[..., None] * other[:, None]
        )
        return points + (radius * np.minimum(1, 2.5 * t))[..., None] * bend


def _beside_the_face(points: np.ndarray, side: np.ndarray, radius_of_face: float) -> np.ndarray:
    """Move points in front of the face to its side, as hair that is worn open lies."""
    x, y, z = points[:, 0], points[:, 1], points[:, 2]
    width = radius_of_face * np.clip((0.985 - y) / 0.06, 0, 1)
    width = width * np.clip((y - 0.74) / 0.04, 0.75, 1)
    before = (z > 0.05) & (y < 0.985) & (np.abs(x) < width)
    out = points.copy()
    out[:, 0] = np.where(before, side * width, x)
    return out


def scalp_cover(at: np.ndarray, traits: Traits) -> np.ndarray:
    """Return how densely (0 to 1) hair grows at points (N, 3) of the average head."""
    angle = np.degrees(np.abs(np.arctan2(at[:, 0], at[:, 2] - 0.045)))
    knots = (0, 18, 32, 44, 54, 62, 70, 80, 97, 112, 126, 150, 180)
    line = np.array(
        (0.9835, 0.983, 0.9775, 0.966, 0.951, 0.925, 0.888, 0.893, 0.925, 0.90, 0.855, 0.81, 0.80)
    )
    far = traits.hair_recession
    temple = np.array((0.2, 0.6, 1, 1, 0.6, 0.15, 0, 0, 0, 0, 0, 0, 0))
    male = traits.masculinity
    # A round hairline for women, corners at the temples for men.
    line = line + temple * (0.006 * male - 0.003) + 0.030 * far * temple
    line = line + 0.026 * max(0.0, far - 0.35) / 0.65 * np.exp(-((np.array(knots) / 35.0) ** 2))
    height = np.interp(angle, knots, line)
    cover = np.clip((at[:, 1] - height) / 0.009, 0, 1)
    crown = np.exp(-((at[:, 0] / 0.05) ** 2) - ((at[:, 2] - 0.03) / 0.075) ** 2)
    bald = np.clip((far - 0.45) / 0.4, 0, 1) * crown * (at[:, 1] > 0.955)
    return cover * (1 - np.clip(1.3 * bald, 0, 1))


def _gathered(points: np.ndarray, size: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Draw strands together towards their tips, into locks of about `size`; return whose lock."""
    from scipy.spatial import cKDTree

    guides = rng.choice(len(points), max(1, len(points) // size), replace=False)
    middle = POINTS // 2  # strands of one lock lie beside each other, not only their roots
    feature = np.concatenate([points[:, 0], 0.6 * points[:, middle]], 1)
    _, lock = cKDTree(feature[guides]).query(feature)
    t = np.linspace(0, 1, POINTS, dtype=np.float32)[None, :, None]
    pull = rng.uniform(0.0, 0.65, len(points)).astype(np.float32)[:, None, None] * t**1.3
    offset = points[guides[lock]] - points
    near = np.linalg.norm(offset, axis=-1).max(1) < 0.03
    return points + np.where(near[:, None, None], pull, 0) * offset, lock


def _finish(points, anchor, base, grey: float, width: float, rng, lock=None) -> Strands:
    """Give strands their widths and colours: grey ones, darker roots, lighter tips."""
    number = len(points)
    share = np.clip(grey * rng.uniform(0.6, 1.4, number), 0, 0.95)
    colour = base * (1 - share[:, None]) + greyed(base, 1) * share[:, None]
    colour = colour * rng.uniform(0.78, 1.25, (number, 1))
    if lock is not None:
        colour = colour * rng.uniform(0.80, 1.22, (lock.max() + 1, 1))[lock]
    t = np.linspace(0, 1, POINTS)
    root_to_tip = (0.72 + 0.4 * t)[None, :, None]
    colours = np.clip(colour[:, None] * root_to_tip, 0, 1).astype(np.float32)
    taper = np.interp(t, (0, 0.1, 0.6, 1), (0.8, 1, 1, 0.25))
    widths = width * taper[None] * rng.uniform(0.7, 1.3, (number, 1))
    is_hair = np.ones(number, bool)
    return Strands(points.astype(np.float32), widths.astype(np.float32), colours, anchor, is_hair)


def _no_strands() -> Strands:
    empty = np.zeros((0, POINTS, 3), np.float32)
    return Strands(empty, empty[..., 0], empty, np.zeros(0, np.int32), np.zeros(0, bool))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
