"""The GLSL programs of the renderer: skin, eyes and cloth; strands; shadows; backgrounds.

`quickened` makes the films' version of a program: powers become polynomials, shadows one sample.
"""

# Turning the head bends the neck: what lies below stays, what lies above turns about the pivot.
POSE = """
uniform mat3 turn;
uniform mat4 camera;
uniform mat4 sun;
const vec3 PIVOT = vec3(0.0, 0.80, 0.035);
float head_weight(float y) { return smoothstep(0.70, 0.80, y); }
vec3 posed(vec3 p) { return mix(p, PIVOT + turn * (p - PIVOT), head_weight(p.y)); }
vec3 turned(vec3 n, float y) { return normalize(mix(n, turn * n, head_weight(y))); }
"""

LIGHT = """
uniform vec3 key_direction, key_colour, fill_direction, fill_colour, sky, ground, eye;
uniform sampler2DShadow shadow_map;
float lit(vec3 at, float bias) {
    vec4 s = sun * vec4(at, 1.0);
    vec3 q = s.xyz / s.w * 0.5 + 0.5;
    float total = 0.0;
    for (int i = 0; i < 4; i++) {
        vec2 d = vec2(i & 1, i >> 1) - 0.5;
        total += textureLod(shadow_map, vec3(q.xy + d * 0.007, q.z - bias), 0.0);
    }
    return total / 4.0;
}
vec3 to_linear(vec3 c) { return pow(c, vec3(2.2)); }
vec3 to_display(vec3 c) {
    c = mix(c, 1.0 - exp(-c), smoothstep(0.5, 1.2, c));
    return pow(clamp(c, 0.0, 1.0), vec3(1.0 / 2.2));
}
"""

SURFACE_VERTEX = (
    "#version 330\n"
    + POSE
    + """
in vec3 position, normal, canonical;
in vec2 cylinder, layout_uv;
in float inner, occlusion, part, lash, scalp;
out vec3 at, facing, average;
out vec2 skin_uv, mask_uv;
out float mouth, open_sky, kind, tip, haired;
void main() {
    at = posed(position);
    facing = turned(normal, position.y);
    average = canonical; skin_uv = cylinder; mask_uv = layout_uv;
    mouth = inner; open_sky = occlusion; kind = part; tip = lash; haired = scalp;
    gl_Position = camera * vec4(at, 1.0);
}
"""
)

# One program a material: software OpenGL pays for both sides of every branch.
_SURFACE_COMMON = (
    "#version 330\n"
    + POSE
    + LIGHT
    + """
in vec3 at, facing, average;
in vec2 skin_uv, mask_uv;
in float mouth, open_sky, kind, tip, haired;
uniform sampler2D grain;
out vec4 colour;
float noise(vec2 p) { return textureLod(grain, p / 128.0, 0.0).r; }
float bell(float x, float width) { x /= width; return exp(-x * x); }
vec3 shade(vec3 albedo, vec3 n, vec3 wrap, float gloss, float power, float shadow, float ao) {
    vec3 view = normalize(eye - at);
    float k = dot(n, key_direction), f = dot(n, fill_direction);
    vec3 dim = mix(vec3(0.20, 0.10, 0.07) * wrap.r, vec3(1.0), shadow);
    vec3 key = clamp((k + wrap) / (1.0 + wrap), 0.0, 1.0) * dim;
    vec3 fill = clamp((f + wrap) / (1.0 + wrap), 0.0, 1.0) * mix(0.4, 1.0, ao);
    vec3 ambient = mix(ground, sky, 0.5 + 0.5 * n.y) * mix(ao, 1.0, 0.12);
    vec3 light = albedo * (key * key_colour + fill * fill_colour + ambient);
    float grazing = 1.0 - max(dot(n, view), 0.0), g2 = grazing * grazing;
    float edge = 0.04 + 0.5 * g2 * g2 * grazing;
    float spec_key = pow(max(dot(n, normalize(view + key_direction)), 0.0), power) * shadow;
    float spec_fill = pow(max(dot(n, normalize(view + fill_direction)), 0.0), power * 0.6);
    float size = (power + 8.0) / 25.0;
    light += gloss * edge * size * (spec_key * key_colour + 0.5 * spec_fill * fill_colour) * ao;
    return light + gloss * edge * 0.25 * sky * ao;
}
"""
)

SKIN_FRAGMENT = (
    _SURFACE_COMMON
    + """
uniform sampler2D skin, lips;
uniform vec3 lip_colour, scalp_colour, cloth_colour, cloth_second;
uniform vec2 outfit;     // plain, stripes, checks or jacket; with a tie?
uniform vec4 neckline;   // its height in front and behind, its half width, its hem (metres)
uniform float lip_gloss, lip_cover, oil, rough;
vec3 bumped(vec3 n, float height, float strength) {
    vec3 dx = dFdx(at), dy = dFdy(at);
    vec3 r1 = cross(dy, n), r2 = cross(n, dx);
    float det = dot(dx, r1);
    vec3 gradient = sign(det) * (dFdx(height) * r1 + dFdy(height) * r2);
    return normalize(abs(det) * n - strength * gradient);
}
void main() {
    vec3 n = normalize(facing);
    float shadow = lit(at + n * 0.002, 0.004);
    float dip = clamp(1.0 - abs(average.x) / neckline.z, 0.0, 1.0) * step(0.0, average.z - 0.02);
    float edge_y = mix(neckline.y, neckline.x, dip);
    float cloth = 1.0 - smoothstep(edge_y - 0.0015, edge_y + 0.0015, average.y);
    float hem = smoothstep(neckline.w, neckline.w - 0.003, edge_y - average.y);
    float folds = noise(average.xy * vec2(150.0, 60.0));
    vec2 weave = fract(average.xy * vec2(48.0, 60.0));
    float stripes = step(0.6, weave.y), checks = 0.5 * (step(0.6, weave.x) + step(0.6, weave.y));
    float lapel = (average.y - 0.60) * 0.36 - abs(average.x);   // inside: the shirt
    float shirt = smoothstep(-0.001, 0.001, lapel) * step(0.0, average.z);
    float second = outfit.x < 1.5 ? stripes * step(0.5, outfit.x)
        : outfit.x < 2.5 ? checks : shirt;
    vec3 fabric = mix(to_linear(cloth_colour), to_linear(cloth_second), second);
    float tie = step(abs(average.x), 0.010 + 0.05 * (0.735 - average.y)) * step(0.0, average.z);
    tie *= outfit.y * step(0.02, edge_y - average.y);
    fabric = mix(fabric, to_linear(cloth_colour.bgr * 1.6 + 0.04), tie);
    fabric *= 1.0 - 0.35 * step(2.5, outfit.x) * bell(lapel, 0.004);
    fabric *= (0.90 + 0.12 * folds) * mix(1.0, 0.80, hem);

    vec4 texel = texture(skin, skin_uv);
    texel.rgb *= 1.0 - 0.30 * exp(-max(average.y - edge_y, 0.0) / 0.007);   // the cloth's shade
    float mask = smoothstep(0.08, 0.92, texture(lips, mask_uv).r) * (1.0 - mouth);
    float fine = noise(average.xy * vec2(2000.0, 500.0));
    float pores = noise(average.xy * 900.0) + 0.7 * noise(average.yx * 430.0 + 31.0) - 0.85;
    pores *= rough;
    float inside = smoothstep(0.15, 0.6, mouth);
    float cap = clamp(haired * (0.85 + 0.3 * fine), 0.0, 1.0);
    vec3 lip = to_linear(lip_colour) * (0.80 + 0.3 * fine);
    vec3 albedo = mix(to_linear(texel.rgb) * (1.0 + 0.07 * pores), lip, mask * lip_cover);
    albedo = mix(albedo, to_linear(scalp_colour), cap);
    albedo = mix(albedo, vec3(0.16, 0.035, 0.030), inside);
    albedo = mix(albedo, fabric, cloth);
    float height = mix(texel.a + 0.05 * pores, 0.10 * fine, mask);
    n = bumped(n, mix(height, folds, cloth), mix(0.0035, 0.003, cloth));
    // Forehead, nose and the height of the cheeks are the first to shine.
    float middle = bell(average.x, 0.022) * smoothstep(0.845, 0.87, average.y);
    float cheek = bell(abs(average.x) - 0.042, 0.016) * bell(average.y - 0.882, 0.012);
    float shine = oil * (0.7 + 1.2 * middle + 0.8 * cheek) * (1.0 + pores);
    float gloss = mix(mix(shine, lip_gloss, mask) * (1.0 - cap), 0.1, cloth);
    // Light bleeds red through thin skin, less through dark skin.
    vec3 wrap = vec3(0.36, 0.17, 0.12) * clamp(albedo.r * 1.6, 0.1, 1.0) + 0.06;
    float ao = open_sky * open_sky * mix(1.0, 0.35, inside);
    wrap = mix(wrap, vec3(0.15), cloth);
    vec3 c = shade(albedo, n, wrap, gloss, mix(20.0, 34.0, mask), shadow, ao);
    colour = vec4(to_display(c), 1.0);
}
"""
)

EYE_FRAGMENT = (
    _SURFACE_COMMON
    + """
uniform vec3 iris_colour, sclera, eye_left, eye_right;
uniform float pupil;
void main() {
    vec3 n = normalize(facing);
    float shadow = lit(at + n * 0.002, 0.004);
    vec3 d = normalize(average - (average.x > 0.0 ? eye_left : eye_right));
    float angle = acos(clamp(d.z, -1.0, 1.0)), around = atan(d.y, d.x);
    float vein = noise(vec2(around * 60.0, angle * 14.0)) * smoothstep(0.45, 0.9, angle);
    vec3 white = sclera - vec3(0.04, 0.16, 0.15) * vein;
    white = mix(white, vec3(0.42, 0.20, 0.17), smoothstep(0.80, 1.05, angle));
    float streak = noise(vec2(around * 40.0, angle * 25.0));
    vec3 iris = to_linear(iris_colour) * (0.65 + 0.9 * streak * smoothstep(0.42, 0.15, angle));
    iris *= 1.0 - 0.75 * smoothstep(0.33, 0.43, angle);
    iris *= 1.0 + 0.5 * smoothstep(0.1, -0.4, d.y);
    iris = mix(vec3(0.006), iris, smoothstep(pupil - 0.02, pupil + 0.03, angle));
    vec3 albedo = mix(iris, white, smoothstep(0.395, 0.44, angle));
    // The lids and the lashes shade what they overhang, the corners lie deep.
    float lid = smoothstep(0.40, 0.02, d.y) * smoothstep(-0.62, -0.30, d.y);
    lid *= 1.0 - 0.45 * smoothstep(0.45, 0.95, angle);
    vec3 c = shade(albedo, n, vec3(0.25), 0.0, 30.0, mix(0.6, 1.0, shadow), 0.35 + 0.65 * lid);
    c *= 0.30 + 0.70 * lid;
    vec3 view = normalize(eye - at);
    float key = max(dot(n, normalize(view + key_direction * 0.9 + vec3(0, 0.15, 0))), 0.0);
    float fill = max(dot(n, normalize(view + fill_direction)), 0.0);
    float glint = pow(key, 350.0) + 0.35 * pow(fill, 250.0);
    c += glint * 1.8 * (key_colour + 0.2) * smoothstep(0.62, 0.5, angle);
    // What the wet surface mirrors of the sky, and the tears along the lower lid.
    c += 0.035 * sky * smoothstep(-0.1, 0.35, d.y) * smoothstep(0.55, 0.35, angle) * lid;
    c += 0.10 * sky * bell(d.y + 0.40, 0.05);
    colour = vec4(to_display(c), 1.0);
}
"""
)

MOUTH_AND_LASH_FRAGMENT = (
    _SURFACE_COMMON
    + """
uniform vec3 lash_colour;
uniform float lash_strength;
void main() {
    float lower = step(3.5, kind), lash = step(2.5, kind);
    float strength = lash_strength * (1.0 - smoothstep(0.3, 1.0, tip)) * mix(1.0, 0.45, lower);
    vec3 dark = to_linear(lash_colour) * (sky + 0.4 * key_colour);
    vec3 teeth = shade(vec3(0.74, 0.68, 0.58), normalize(facing), vec3(0.4), 0.6, 40.0, 0.8, 0.7);
    colour = vec4(to_display(mix(teeth, dark, lash)), mix(1.0, strength, lash));
}
"""
)

STRAND_VERTEX = (
    "#version 330\n"
    + POSE
    + LIGHT
    + """
in vec3 position, tangent, tint;
in vec2 ribbon;   // side (-1 or 1) times half the width, and how deep in the hair (0 to 1)
out vec3 shine;
out float across;
float sine(vec3 t, vec3 d) { float c = dot(t, d); return sqrt(max(1.0 - c * c, 0.0)); }
// Kajiya and Kay's fibre (1989), lit a vertex at a time: strands are thin and many.
vec3 fibre(vec3 at, vec3 t) {
    vec3 view = normalize(eye - at), albedo = to_linear(tint);
    vec4 s = sun * vec4(at + key_direction * 0.006, 1.0);
    float shadow = textureLod(shadow_map, vec3(s.xy, s.z - 0.012) * 0.5 + 0.5, 0.0);
    vec3 outward = normalize(at - vec3(0.0, 0.90, 0.04));
    float around = clamp(0.5 + 0.7 * dot(outward, key_direction), 0.0, 1.0);
    float fill_around = clamp(0.5 + 0.7 * dot(outward, fill_direction), 0.0, 1.0);
    vec3 half_way = normalize(view + key_direction);
    float first = pow(sine(t, half_way), 60.0);
    float second = pow(sine(t, normalize(half_way + 0.12 * t)), 14.0);
    vec3 light = albedo * (sine(t, key_direction) * around * mix(0.2, 1.0, shadow) * key_colour
        + sine(t, fill_direction) * fill_around * fill_colour
        + mix(ground, sky, 0.5 + 0.5 * outward.y));
    vec3 gleam = 0.05 * first + (albedo + 0.01) * 0.6 * second;
    light += mix(0.3, 1.0, shadow) * around * key_colour * gleam;
    return light * mix(0.38, 1.0, ribbon.y);
}
void main() {
    vec3 p = posed(position);
    vec3 along = turned(tangent, position.y);
    vec3 sideways = normalize(cross(along, eye - p));
    vec3 at = p + sideways * ribbon.x;
    across = sign(ribbon.x);
    shine = fibre(p, along);
    gl_Position = camera * vec4(at, 1.0);
}
"""
)

STRAND_FRAGMENT = (
    "#version 330\n"
    + POSE
    + LIGHT
    + """
in vec3 shine;
in float across;
out vec4 colour;
void main() { colour = vec4(to_display(shine * (1.05 - 0.25 * across * across)), 1.0); }
"""
)

SHADOW_VERTEX = (
    "#version 330\n"
    + POSE
    + """
in vec3 position;
void main() { gl_Position = sun * vec4(posed(position), 1.0); }
"""
)

# A few wide ribbons cast the shadow of all strands.
STRAND_SHADOW_VERTEX = (
    "#version 330\n"
    + POSE
    + """
uniform vec3 key_direction;
in vec3 position, tangent;
in vec2 ribbon;
void main() {
    vec3 p = posed(position);
    vec3 sideways = normalize(cross(turned(tangent, position.y), key_direction));
    gl_Position = sun * vec4(p + sideways * ribbon.x * 2.5, 1.0);
}
"""
)

SHADOW_FRAGMENT = "#version 330\nvoid main() {}\n"

BACKDROP_VERTEX = """#version 330
out vec2 place;
void main() {
    place = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 2.0;
    gl_Position = vec4(place * 2.0 - 1.0, 0.0, 1.0);
}
"""

BACKDROP_FRAGMENT = """#version 330
in vec2 place;
uniform sampler2D backdrop;
out vec4 colour;
void main() { colour = vec4(texture(backdrop, place).rgb, 1.0); }
"""

# What a program of a portrait says -> what it says in a film, to within some grey levels.
_QUICKER = (
    (
        "vec3 to_linear(vec3 c) { return pow(c, vec3(2.2)); }",
        "vec3 to_linear(vec3 c) { return c * (c * (c * 0.3053 + 0.6822) + 0.0125); }",
    ),
    (
        "return pow(clamp(c, 0.0, 1.0), vec3(1.0 / 2.2));",
        "vec3 r = sqrt(clamp(c, 0.0, 1.0)), q = sqrt(r);\n"
        "    return 0.5851 * r + 0.7831 * q - 0.3683 * sqrt(q);",
    ),
    (
        """    for (int i = 0; i < 4; i++) {
        vec2 d = vec2(i & 1, i >> 1) - 0.5;
        total += textureLod(shadow_map, vec3(q.xy + d * 0.007, q.z - bias), 0.0);
    }
    return total / 4.0;""",
        "    return textureLod(shadow_map, vec3(q.xy, q.z - bias), 0.0);",
    ),
)


def quickened(source: str) -> str:
    """Return a program's source with what is slow in software replaced by what is quick."""
    for slow, quick in _QUICKER:
        source = source.replace(slow, quick)
    return source
