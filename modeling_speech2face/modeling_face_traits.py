"""What a voice tells of a face, in one sentence: traits are read from draws of its embedding.

Letters: T traits, N draws, D size of the face embedding.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config

# Of the variance among people. From a half on, draws are plainly more alike than people.
FIXED_SHARE = 0.5
# Below a fifth, draws spread at least 0.89 times as wide as people, which is known of some hundred
# held-out people to about 0.06: that could be chance, and nobody would see it.
HINTED_SHARE = 0.2
# Shares of the draws that must be alike before a yes or no is called fixed, or hinted at.
AGREEING, LEANING = 0.9, 0.75
APART = 0.5  # standard deviations from people's mean, beyond which a face is called small or large
ROUNDED_TO = 5  # years: more than that is not to be read from a face


@dataclass(frozen=True)
class FaceTrait:
    """A trait of a face, and the words for it.

    Attributes:
        noun: what it is called where it is left open.
        values: what a face is said to have: of a binary trait (no, yes), of a continuous one (low,
            middle, high). A trait without any is never named but among what is left open.
        interval: of a trait in years, the words instead, with two places for numbers.
        is_binary: whether the probe tells yes from no, by its sign.
        among: "female" or "male", if it is asked only of faces that are perceived so.
    """

    noun: str
    values: tuple[str, ...] = ()
    interval: str = ""
    is_binary: bool = False
    among: str | None = None


# All that may be said. Ancestry is not among it, and nothing else can be probed.
FACE_TRAITS = {
    "gender": FaceTrait(
        "perceived gender",
        ("a face perceived as a woman's", "a face perceived as a man's"),
        is_binary=True,
    ),
    "age": FaceTrait("age", interval="an age of {} to {} years"),
    "fullness": FaceTrait(
        "fullness of the face", ("a thin face", "a face neither thin nor full", "a full face")
    ),
    "lower_face": FaceTrait(
        "size of the lower face",
        ("a small lower face", "a lower face of middling size", "a large lower face"),
    ),
    "hair_length": FaceTrait(
        "length of the hair", ("short hair", "hair of middling length", "long hair")
    ),
    "hair_darkness": FaceTrait(
        "darkness of the hair", ("light hair", "hair neither light nor dark", "dark hair")
    ),
    "hair_grey": FaceTrait("grey hair", ("hair without grey", "greying hair", "grey hair")),
    "beard": FaceTrait("beard", ("no beard", "a beard"), is_binary=True, among="male"),
    "make_up": FaceTrait("make-up", ("no make-up", "make-up"), is_binary=True, among="female"),
    "glasses": FaceTrait("glasses", ("no glasses", "glasses"), is_binary=True),
    "skin_tone": FaceTrait("skin tone"),
    "eye_colour": FaceTrait("eye colour", is_binary=True),
}


class FaceTraitProbe(ModelMixin, ConfigMixin):
    """Reads traits of a face from its centred embedding, along one straight line each.

    Args:
        face_embedding_size (`int`): D.
        face_recogniser (`str`): whose embeddings these are; must be the voice encoder's teacher.
        names (`list[str]`): of the T traits, keys of `FaceTraitProbe.known_traits`.
        held_out (`list[float]`): how well each is read from faces of people in no training: the
            area under the ROC curve of a binary trait, the correlation of a continuous one, among
            one gender.
        held_out_people (`int`): how many these are.

    Raises:
        ValueError: a trait for which there are no words.

    Example:
        ```python
        >>> import torch
        >>> from modeling_speech2face import FaceTraitProbe
        >>> probe = FaceTraitProbe(face_embedding_size=2, names=["gender", "age"])
        >>> probe.weights.copy_(torch.tensor([[1.0, 0.0], [0.0, 10.0]]))
        tensor([[ 1.,  0.],
                [ 0., 10.]])
        >>> draws = torch.tensor([2.0, 0.0]) + torch.randn(1000, 2) * torch.tensor([0.1, 1.0])
        >>> probe.tell(draws)
        "The voice fixes: a face perceived as a man's; it leaves open: age."

        ```
    """

    known_traits = FACE_TRAITS

    @register_to_config
    def __init__(
        self,
        face_embedding_size: int = 128,
        face_recogniser: str = "dlib",
        names: Sequence[str] = ("gender",),
        held_out: Sequence[float] = (),
        held_out_people: int = 0,
    ):
        super().__init__()
        unknown = [name for name in names if name not in FACE_TRAITS]
        if unknown:
            raise ValueError(
                f"there are no words for the traits {', '.join(unknown)}: fit the probe again, of "
                f"{', '.join(FACE_TRAITS)}."
            )
        self.register_buffer("weights", torch.zeros(len(names), face_embedding_size))
        self.register_buffer("intercepts", torch.zeros(len(names)))
        # Of the scores of people's faces; but for the gender's, deviations are those within a
        # gender, so that what follows from the gender alone is not told twice.
        self.register_buffer("means", torch.zeros(len(names)))
        self.register_buffer("deviations", torch.ones(len(names)))

    def forward(self, face_embeddings: torch.Tensor) -> torch.Tensor:
        """Scores of faces.

        Args:
            face_embeddings (`torch.Tensor` `(N, D)`): centred.

        Returns:
            `torch.Tensor` `(N, T)`: in the units of continuous traits; above 0 is a yes.
        """
        weights = self.weights.float()
        return face_embeddings.to(weights) @ weights.T + self.intercepts.float()

    @torch.no_grad()
    def tell(self, draws: torch.Tensor) -> str:
        """Says which traits a voice fixes and which it leaves open.

        Of the variance of a trait among people, the voice accounts for the share
        `1 - var(draws) / var(people)`. From a half on the trait is fixed, from a fifth on it is
        hinted at; but a yes or no is fixed only if nine draws of ten agree on it, and hinted at if
        three of four do.

        Args:
            draws (`torch.Tensor` `(N, D)`): faces that fit the voice; some hundred, so that their
                variance is known to a few percent.

        Returns:
            `str`: "The voice fixes: ...; it hints at: ...; it leaves open: ...".
        """
        scores = self(draws)
        male = None
        if "gender" in self.config.names:
            male = scores[:, self.config.names.index("gender")] > 0  # (N,)
        said = {"fixes": [], "hints at": [], "leaves open": []}
        for index, name in enumerate(self.config.names):
            trait, rows = FACE_TRAITS[name], scores[:, index]
            if trait.among is not None and male is not None:
                asked = male if trait.among == "male" else ~male
                if asked.float().mean() < 1 - AGREEING:
                    continue
                rows = rows[asked]
            mean, deviation = float(self.means[index]), float(self.deviations[index])
            standing = _standing(trait, rows, deviation)
            if standing == "leaves open":
                said[standing].append(trait.noun)
            elif trait.values or trait.interval:
                said[standing].append(_in_words(trait, rows, mean, deviation))
        parts = [f"it {standing}: {', '.join(them)}" for standing, them in said.items() if them]
        if said["fixes"]:
            parts[0] = parts[0].replace("it", "The voice", 1)
        else:
            parts.insert(0, "The voice fixes nothing that can be named")
        return "; ".join(parts) + "."


def _standing(trait: FaceTrait, scores: torch.Tensor, deviation: float) -> str:
    """Whether a voice fixes a trait, hints at it or leaves it open; scores (N,) of its draws."""
    share = 1 - float(scores.var(correction=0)) / deviation**2
    yes = float((scores > 0).float().mean())
    alike = max(yes, 1 - yes) if trait.is_binary else 1
    if share >= FIXED_SHARE and alike >= AGREEING:
        return "fixes"
    return "hints at" if share >= HINTED_SHARE and alike >= LEANING else "leaves open"


def _in_words(trait: FaceTrait, scores: torch.Tensor, mean: float, deviation: float) -> str:
    """What the draws' faces have: "a large lower face"; ages from their 10th to 90th percentile."""
    if trait.is_binary:
        return trait.values[int(scores.median() > 0)]
    if trait.interval:
        low, high = scores.quantile(scores.new_tensor([1 - AGREEING, AGREEING])).tolist()
        low, high = math.floor(low / ROUNDED_TO), math.ceil(high / ROUNDED_TO)  # outwards
        return trait.interval.format(ROUNDED_TO * low, ROUNDED_TO * high)
    away = (float(scores.mean()) - mean) / deviation
    return trait.values[0 if away < -APART else 2 if away > APART else 1]
