"""One member of the synthetic cast: the traits of the face, the parameters of the voice."""

from dataclasses import dataclass

EYE_COLOURS = ("brown", "hazel", "green", "blue", "grey")
HAIR_CUTS = ("shaved", "buzz", "short", "side_parted", "curly", "bob", "long", "tied_back")
HAIR_COLOURS = ("black", "dark_brown", "brown", "auburn", "blond")
GLASSES = ("none", "metal", "plastic")
BEARDS = ("none", "stubble", "moustache", "goatee", "full")
SHAPE_COMPONENTS = 24  # independent local changes of nose, eyes, mouth, cheeks, chin and brow


@dataclass(frozen=True)
class Traits:
    """The face of a cast member: everything about it that stays from picture to picture.

    Attributes:
        gender: "female" or "male", the label.
        masculinity: 0 (most feminine geometry) to 1 (most masculine).
        age: years, 18 to 80.
        lower_face: size of jaw and lower face, standard units given gender (+ is larger).
        weight: 0 (thin) to 1 (heavy).
        muscle: 0 to 1.
        ancestry: shares of the model's three shape poles (african, asian, caucasian), sum 1.
        skin_tone: melanin, 0 (lightest) to 1 (darkest).
        skin_hue: -1 (pinker) to 1 (yellower).
        eye_colour: one of EYE_COLOURS.
        hair_cut: one of HAIR_CUTS.
        hair_colour: one of HAIR_COLOURS, before greying.
        hair_grey: share of grey hair, 0 to 1.
        hair_recession: how far the hairline has moved back, 0 to 1.
        beard: one of BEARDS.
        brow_thickness: 0 (thin, arched) to 1 (bushy).
        make_up: 0 (none) to 1 (lips, lashes and lids clearly made up).
        shape: (SHAPE_COMPONENTS,) local changes of the face, standard units.
        glasses: one of GLASSES.
        seed: for what is drawn once a person and has no name (freckles, strands, wrinkle pattern).
    """

    gender: str
    masculinity: float
    age: float
    lower_face: float
    weight: float
    muscle: float
    ancestry: tuple[float, float, float]
    skin_tone: float
    skin_hue: float
    eye_colour: str
    hair_cut: str
    hair_colour: str
    hair_grey: float
    hair_recession: float
    beard: str
    brow_thickness: float
    make_up: float
    shape: tuple[float, ...]
    seed: int
    glasses: str = "none"


@dataclass(frozen=True)
class VoiceParameters:
    """The voice of a cast member, as asked for; the base voice supplies everything else.

    Attributes:
        voice_id: the base voice ("librispeech/103", "kokoro/af_bella", "blend/af_bella+bf_emma").
        pitch_hz: median fundamental frequency, Hz.
        formant_ratio: formant spacing relative to the gender's mean (above 1: shorter vocal tract).
        rate_ratio: speaking rate relative to the base voice's.
        breathiness: 0 (modal) to 1 (aspiration noise clearly heard).
    """

    voice_id: str
    pitch_hz: float
    formant_ratio: float
    rate_ratio: float
    breathiness: float


@dataclass(frozen=True)
class CastMember:
    """One synthetic speaker: a face, a voice, and the split that both belong to."""

    speaker_id: str
    split: str
    traits: Traits
    voice: VoiceParameters
