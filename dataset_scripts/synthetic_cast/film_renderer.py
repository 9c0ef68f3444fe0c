"""Many frames of the same few people: `FilmRenderer().draw(size, background, views)`.

What a portrait draws anew each time (skin, hair, a mesh of all actions) is uploaded once a person
here, strands are fewer and wider, and there is no supersampling: some ten times faster than a
portrait, and still the same person.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import appearance
from .frames import Clothes, Light
from .geometry import _vertex_triangle_sum
from .renderer import (
    _RIBBON_FLOATS,
    HEAD_HEIGHT,
    HEAD_MIDDLE,
    FaceRenderer,
    _ambient_occlusion,
    _bound,
    _ribbon_indices,
    _rotation,
)
from .shaders import quickened
from .traits import Traits

STRAND_STEP = 6  # every so many hairs are kept
HAIR_WIDENING = 3.5
LARGEST_FRAME = (640, 360)  # pixels, width and height
CACHED_ACTORS = 6
FILM_SHADOW_SIZE = 256  # pixels
# The facial actions that films use; the mesh is kept ready for these and no others.
FILM_ACTIONS = (
    *("jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthRollLower", "mouthRollUpper"),
    *("mouthPressLeft", "mouthPressRight", "mouthStretchLeft", "mouthStretchRight"),
    *("mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight"),
    *("mouthSmileLeft", "mouthSmileRight", "mouthShrugLower", "jawLeft", "jawRight"),
    *("cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "browInnerUp"),
    *("browDownLeft", "browDownRight", "eyeLookInLeft", "eyeLookOutLeft", "eyeLookInRight"),
    *("eyeLookOutRight", "eyeLookDownLeft", "eyeLookDownRight", "tongueOut"),
)


@dataclass(frozen=True)
class View:
    """One person in one frame.

    Attributes:
        traits: who it is.
        yaw, pitch, roll: of the head, degrees, as in `Frame`.
        azimuth: of the camera around the person, degrees; positive: from the person's left.
        place: (x, y) of the head's middle, shares of the frame's width and height, from top left.
        head_share: of the frame's height that the head fills.
        distance: of the camera, metres.
        expression: facial action (of FILM_ACTIONS) -> 0 to 1.
        light, clothes: as in `Frame`.
    """

    traits: Traits
    yaw: float
    pitch: float
    roll: float
    azimuth: float
    place: tuple[float, float]
    head_share: float
    distance: float
    expression: dict[str, float]
    light: Light
    clothes: Clothes


@dataclass
class _Actor:
    """A person's uploads, and what moves of the mesh."""

    rest: np.ndarray  # (C, 3) vertices without expression
    vertices: np.ndarray  # (C, 6) float32 as last uploaded: positions and normals
    buffer: object
    skin: object
    surfaces: list
    shadow: object
    strands: object
    strand_shadow: object
    strand_buffer: object
    strand_indices: int
    casting_indices: int  # of a few strands, whose ribbons are widened to cast all shadows
    scalp_bytes: int
    beard: np.ndarray | None  # (S, points, 2, floats) ribbons at rest
    beard_anchors: np.ndarray  # (S,) vertices that its strands move with
    resources: list  # of OpenGL, to be released


class FilmRenderer(FaceRenderer):
    """Draws frames of films; one renderer serves one thread and frames of any size.

    Raises:
        RuntimeError: if no OpenGL context can be made.
    """

    def __init__(self) -> None:
        super().__init__(size=64)
        width, height = LARGEST_FRAME
        self._film_colour = self._gl.texture((width, height), 3)
        depth = self._gl.depth_renderbuffer((width, height))
        self._film_target = self._gl.framebuffer([self._film_colour], depth)
        self._film_shadow_map = self._gl.depth_texture((FILM_SHADOW_SIZE, FILM_SHADOW_SIZE))
        self._film_shadow_map.compare_func = "<="
        self._film_shadow_map.repeat_x = self._film_shadow_map.repeat_y = False
        self._film_shadow_target = self._gl.framebuffer(depth_attachment=self._film_shadow_map)
        self._picture = None
        self._picture_key = None
        self._actors: OrderedDict[Traits, _Actor] = OrderedDict()
        self._build_coarse_surface()
        self._prepare_actions()

    def draw(
        self, size: tuple[int, int], background: np.ndarray, views: Sequence[View]
    ) -> np.ndarray:
        """Draws one frame.

        Args:
            size: (width, height) of the frame, pixels, at most LARGEST_FRAME.
            background: (height, width, 3) uint8 RGB; the same array again is not uploaded again.
            views: people, from the farthest to the nearest.

        Returns:
            (height, width, 3) uint8 RGB.

        Raises:
            ValueError: if the frame is too large, or the background of another size.
        """
        width, height = size
        if width > LARGEST_FRAME[0] or height > LARGEST_FRAME[1]:
            raise ValueError(f"expected a frame of at most {LARGEST_FRAME}, got {size}")
        if background.shape != (height, width, 3):
            raise ValueError(f"expected a background {(height, width, 3)}, got {background.shape}")
        with self._gl:  # another renderer of this process may have been at work
            self._draw_backdrop(size, background)
            for view in views:
                self._draw_view(size, view)
            data = self._film_target.read((0, 0, width, height), components=3, alignment=1)
        return np.frombuffer(data, np.uint8).reshape(height, width, 3)[::-1]

    def _build_coarse_surface(self) -> None:
        """Prepare the mesh before its subdivision, its vertices where the subdivision puts them."""
        model, gl = self.model, self._gl
        topology, quads = model.topology, model._quads
        count = int(quads.max()) + 1  # the fine vertices begin with the coarse ones
        self._count = count
        material = np.minimum(topology.part[quads[:, 0]], len(self._materials) - 1)
        quads = quads[np.argsort(material, kind="stable")]
        self._coarse_counts = [6 * int((material == k).sum()) for k in range(3)]
        triangles = np.stack([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]], 1).reshape(-1, 3)
        self._coarse_triangles = triangles.astype(np.int32)
        self._coarse_indices = gl.buffer(self._coarse_triangles.tobytes())
        occlusion = _ambient_occlusion(model)[:count]
        kinds = [topology.inner_mouth, occlusion, topology.part, topology.lash]
        static = np.concatenate(
            [
                topology.canonical[:count],
                appearance.cylinder_uv(topology.canonical)[:count],
                topology.texture_uv[:count],
                np.stack([k[:count] for k in kinds], 1),
            ],
            1,
        ).astype(np.float32)
        names = ("canonical", "cylinder", "layout_uv", "inner", "occlusion", "part", "lash")
        self._coarse_static = (gl.buffer(static.tobytes()), "3f 2f 2f 1f 1f 1f 1f", names)
        self._corner_sum = _vertex_triangle_sum(self._coarse_triangles, count)

    def _prepare_actions(self) -> None:
        """Keep the moves of the mesh for each action of a film, on the vertices that move."""
        model = self.model
        smoothing = model._subdivision[: self._count]
        moves = []
        for name in FILM_ACTIONS:
            coarse = model._shapes[model._action_row[name]].reshape(-1, 3)
            moves.append(smoothing @ coarse)
        moves = np.stack(moves)  # (A, C, 3)
        moving = np.flatnonzero((np.abs(moves) > 1e-5).any((0, 2)))
        self._moving_vertices = moving
        self._moves = np.ascontiguousarray(moves[:, moving], np.float32).reshape(len(moves), -1)
        self._action_index = {name: k for k, name in enumerate(FILM_ACTIONS)}
        triangles = self._coarse_triangles
        is_moving = np.zeros(self._count, bool)
        is_moving[moving] = True
        changed = np.flatnonzero(is_moving[triangles].any(1))
        # Normals change at the corners of all triangles that change.
        self._touched = np.unique(triangles[changed])
        near = np.flatnonzero(np.isin(triangles, self._touched).any(1))
        self._near_triangles = triangles[near]
        self._touched_sum = self._corner_sum[self._touched][:, near]

    def _program(self, vertex: str, fragment: str):
        return super()._program(quickened(vertex), quickened(fragment))

    def _actor(self, traits: Traits) -> _Actor:
        if traits in self._actors:
            self._actors.move_to_end(traits)
            return self._actors[traits]
        actor = self._upload(traits)
        self._actors[traits] = actor
        if len(self._actors) > CACHED_ACTORS:
            _, old = self._actors.popitem(last=False)
            for resource in old.resources:
                resource.release()
        return actor

    def _upload(self, traits: Traits) -> _Actor:
        gl, person = self._gl, self._person(traits)
        rest = person.rest[: self._count]
        normals = _unit(self._corner_sum @ _cross_products(rest, self._coarse_triangles))
        vertices = np.concatenate([rest, normals], 1).astype(np.float32)
        buffer = gl.buffer(vertices.tobytes())
        scalp = gl.buffer(person.scalp[: self._count].tobytes())
        skin = gl.texture(self._skin.size, 4, person.texture[::-1].tobytes())
        skin.repeat_x = skin.repeat_y = False
        content = (
            (buffer, "3f 3f", ("position", "normal")),
            (scalp, "1f", ("scalp",)),
            self._coarse_static,
        )
        surfaces = [
            gl.vertex_array(
                p,
                [_bound(p, *part) for part in content if any(n in p for n in part[2])],
                self._coarse_indices,
            )
            for p in self._materials
        ]
        shadow = gl.vertex_array(
            self._shadow, [(buffer, "3f 12x", "position")], self._coarse_indices
        )
        is_scalp = person.strands.anchor < 0
        on_beard = _kept(person.strands, ~is_scalp)
        point_step = 1 if traits.hair_cut == "curly" else 2
        scalp_ribbons = _film_ribbons(person.strands, is_scalp, point_step)
        beard = _film_ribbons(person.strands, ~is_scalp, point_step)
        data = np.concatenate([scalp_ribbons, beard])
        strand_buffer = gl.buffer(data.tobytes() if len(data) else bytes(44))
        points = data.shape[1]
        strand_size = (points - 1) * 6  # indices
        indices = gl.buffer(_ribbon_indices(max(1, len(data)), points).tobytes())
        layout = [(strand_buffer, "3f 3f 3f 2f", "position", "tangent", "tint", "ribbon")]
        layout_shadow = [(strand_buffer, "3f 3f 12x 2f", "position", "tangent", "ribbon")]
        strand_array = gl.vertex_array(self._strand, layout, indices)
        strand_shadow = gl.vertex_array(self._strand_shadow, layout_shadow, indices)
        arrays = [*surfaces, shadow, strand_array, strand_shadow]
        return _Actor(
            rest=rest,
            vertices=vertices,
            buffer=buffer,
            skin=skin,
            surfaces=surfaces,
            shadow=shadow,
            strands=strand_array,
            strand_shadow=strand_shadow,
            strand_buffer=strand_buffer,
            strand_indices=len(data) * strand_size,
            casting_indices=len(data) // 4 * strand_size,
            scalp_bytes=scalp_ribbons.nbytes,
            beard=beard if len(beard) else None,
            beard_anchors=self._nearest_coarse(person, on_beard),
            resources=[*arrays, buffer, scalp, skin, strand_buffer, indices],
        )

    def _nearest_coarse(self, person, strands: np.ndarray) -> np.ndarray:
        """Return for each strand the coarse vertex that is nearest to the one it moves with."""
        from scipy.spatial import cKDTree

        anchors = person.rest[person.strands.anchor[strands]]
        return cKDTree(person.rest[: self._count]).query(anchors)[1]

    def _move(self, actor: _Actor, expression: dict[str, float]) -> None:
        """Move the mesh to an expression, and the beard with it."""
        weights = np.zeros(len(FILM_ACTIONS), np.float32)
        for name, value in expression.items():
            weights[self._action_index[name]] = value
        moved = (weights @ self._moves).reshape(-1, 3)
        vertices = actor.vertices
        vertices[self._moving_vertices, :3] = actor.rest[self._moving_vertices] + moved
        at = vertices[:, :3]
        vertices[self._touched, 3:] = _unit(
            self._touched_sum @ _cross_products(at, self._near_triangles)
        )
        actor.buffer.write(vertices.tobytes())
        if actor.beard is not None:
            shift = at[actor.beard_anchors] - actor.rest[actor.beard_anchors]
            ribbons = actor.beard.copy()
            ribbons[..., 0:3] += shift[:, None, None]
            actor.strand_buffer.write(ribbons.tobytes(), offset=actor.scalp_bytes)

    def _draw_backdrop(self, size: tuple[int, int], background: np.ndarray) -> None:
        gl = self._gl
        if self._picture_key is not background:
            if self._picture is None or self._picture.size != size:
                self._picture = gl.texture(size, 3, alignment=1)
                self._picture.filter = (gl.NEAREST, gl.NEAREST)
            self._picture.write(np.ascontiguousarray(background[::-1]).tobytes(), alignment=1)
            self._picture_key = background
        self._film_target.use()
        self._film_target.viewport = (0, 0, *size)
        gl.disable(gl.DEPTH_TEST)
        gl.disable(gl.BLEND)
        self._backdrop_program["backdrop"].value = 3
        self._picture.use(3)
        self._backdrop_array.render(vertices=3)

    def _draw_view(self, size: tuple[int, int], view: View) -> None:
        gl = self._gl
        actor = self._actor(view.traits)
        self._move(actor, view.expression)
        self._set_view_uniforms(size, view)
        actor.skin.use(0)
        gl.disable(gl.BLEND)
        self._film_shadow_target.use()
        self._film_shadow_target.clear(depth=1.0)
        gl.enable(gl.DEPTH_TEST)
        actor.shadow.render(vertices=self._coarse_counts[0])
        if actor.strand_indices:
            actor.strand_shadow.render(vertices=actor.casting_indices)
        gl.finish()  # strands look at the shadow a vertex at a time: Mesa would not wait for it
        target = self._film_target
        target.use()
        target.viewport = (0, 0, *size)
        target.color_mask = (False, False, False, False)
        target.clear(depth=1.0, viewport=(0, 0, *size))
        target.color_mask = (True, True, True, True)
        target.use()
        gl.enable(gl.DEPTH_TEST)
        self._film_shadow_map.use(2)
        n_skin, n_eyes, n_rest = self._coarse_counts
        skin, eyes, rest = actor.surfaces
        if actor.strand_indices:
            actor.strands.render(vertices=actor.strand_indices)
        gl.enable(gl.CULL_FACE)
        skin.render(vertices=n_skin)
        eyes.render(vertices=n_eyes, first=n_skin)
        gl.disable(gl.CULL_FACE)
        gl.enable(gl.BLEND)
        rest.render(vertices=n_rest, first=n_skin + n_eyes)
        gl.disable(gl.BLEND)

    def _set_view_uniforms(self, size: tuple[int, int], view: View) -> None:
        turn = _rotation(view.yaw, view.pitch, view.roll)
        camera, eye = _film_camera(size, view)
        self._set_shared_uniforms(view.traits, view.light, view.clothes, turn, camera, eye)


def _kept(strands, which: np.ndarray) -> np.ndarray:
    """Return the numbers of the strands to draw, of those in question: some hairs, all glasses."""
    hairs = np.flatnonzero(which & strands.is_hair)[::STRAND_STEP]
    return np.concatenate([hairs, np.flatnonzero(which & ~strands.is_hair)])


def _film_ribbons(strands, which: np.ndarray, point_step: int) -> np.ndarray:
    """Return interleaved vertices (S, points, 2, floats) of fewer, wider and plainer strands."""
    keep = _kept(strands, which)
    points = strands.points[keep, ::point_step]
    tangent = np.gradient(points, axis=1) if len(points) else points
    tangent = tangent / np.maximum(np.linalg.norm(tangent, axis=-1, keepdims=True), 1e-9)
    wider = np.where(strands.is_hair[keep], HAIR_WIDENING, 1.0)[:, None]
    half = strands.widths[keep, ::point_step] / 2 * wider
    both = np.empty((*half.shape, 2, _RIBBON_FLOATS), np.float32)
    both[..., 0:3] = points[:, :, None]
    both[..., 3:6] = tangent[:, :, None]
    both[..., 6:9] = strands.colours[keep, ::point_step][:, :, None]
    both[..., 0, 9], both[..., 1, 9] = -half, half
    both[..., 10] = np.broadcast_to(np.linspace(0.15, 1, half.shape[1]), half.shape)[..., None]
    return both


def _cross_products(at: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return the normals (T, 3) of triangles, as long as twice their areas."""
    a, b, c = (at[triangles[:, k]] for k in range(3))
    (ux, uy, uz), (vx, vy, vz) = (b - a).T, (c - a).T
    return np.stack([uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx], 1)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / (np.sqrt((vectors**2).sum(1, keepdims=True)) + 1e-12)


def _film_camera(size: tuple[int, int], view: View) -> tuple[np.ndarray, np.ndarray]:
    """Return the camera matrix (4, 4) and the eye's position."""
    width, height = size
    around = _rotation(view.azimuth, 0, 0)
    eye = HEAD_MIDDLE + around @ np.array([0, 0, view.distance])
    focal = 2 * view.head_share * view.distance / HEAD_HEIGHT
    near, far = view.distance - 0.6, view.distance + 0.6
    look = np.eye(4)
    look[:3, :3] = around.T
    look[:3, 3] = -around.T @ eye
    lens = np.zeros((4, 4))
    lens[0, 0], lens[1, 1] = focal * height / width, focal
    lens[0, 2], lens[1, 2] = 1 - 2 * view.place[0], 2 * view.place[1] - 1
    lens[2, 2], lens[2, 3] = -(far + near) / (far - near), -2 * far * near / (far - near)
    lens[3, 2] = -1
    return lens @ look, eye
