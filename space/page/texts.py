"""Every sentence of the page that is not an error."""

from pathlib import Path

import yaml

from .limits import KEPT_SECONDS, MAX_SECONDS
from .weights import BUNDLED

CARD = BUNDLED / "README.md"

TITLE = "Speech2Face"
LEAD = (
    "Speak for a few seconds, and see faces that a listener could expect behind the voice. "
    "<strong>Nobody you see here exists.</strong>"
)
CONSENT = "This is my own voice, or its owner lets me use it; and it is not a child’s."
CONSENT_NOTE = (
    "It is used for this page alone and sent nowhere else. Recordings are deleted after "
    f"{KEPT_SECONDS // 60} minutes at the latest, and those that you drew faces from when you "
    "close the page; pictures are not stored at all."
)
NO_CONSENT = "Please confirm first that you may use this voice, and that it is not a child’s."
VOICE_NOTE = f"One or two sentences are enough; the first {MAX_SECONDS // 60} minutes are used."
EXAMPLE = "For example, from a recording of a man who reads aloud. None of these is his face."
EXAMPLE_SOON = (
    "The page has just been started, and loads what it draws with. In a few seconds an example "
    "appears here; faces that you ask for come after it."
)
AVERAGE = "<strong>The average</strong> of many faces that fit: what they share."
CERTAINTY = (
    "<strong>What the voice fixes:</strong> bright where faces that fit agree, dark where the "
    "voice leaves them open."
)

CAN_AND_CANNOT = """
<h2 class="s2f-part">What a voice tells, and what not</h2>
<div class="s2f-two">
<div>
<h3>What it can tell</h3>
<p>How a listener would perceive the speaker’s gender, mostly. All faces of a voice share that;
it is what the average and the bright areas show.</p>
</div>
<div>
<h3>What it cannot tell</h3>
<p>Who is speaking. Skin colour, ancestry, hair, eyes, build: they are drawn at random, which is
why the faces differ. Age is hardly heard either. The model was trained on invented people
alone, and what it learnt of voices and faces is theirs.</p>
</div>
<div>
<h3>What it is not for</h3>
<p>Identifying, selecting or judging anyone: not for police work, hiring, insurance or medicine,
and not to make a picture of somebody who did not ask for one.</p>
</div>
</div>
"""

FROM_CODE = """
```text
from gradio_client import Client, handle_file

page = Client("https://...")  # the address of this page, or the name of its Space
faces, average, certainty, told, sheet = page.predict(
    voice=handle_file("voice.wav"), consent=True, num_images=4, seed=0, api_name="/generate"
)
nearest, similarities = page.predict(
    voice=handle_file("voice.wav"), consent=True, api_name="/retrieve"
)
```
`consent=True` says of the voice what the first box of this page says. What you upload that way is
deleted as soon as it was used; `page.view_api()` explains the rest.
"""

# What the table says of a figure of the model card, and what would be no information at all.
FIGURES = (
    (
        "faces_attribute_agreement_gender_balanced_accuracy",
        "diffusion from voice, 6 s",
        "perceived gender of the varied faces fits the speaker’s label",
        "{0:.0%} ({1:.0%} to {2:.0%})",
        "50%",
    ),
    (
        "faces_attribute_agreement_gender_balanced_accuracy",
        "normalized from voice, 6 s",
        "the same, of the average-looking face",
        "{0:.0%} ({1:.0%} to {2:.0%})",
        "50%",
    ),
    (
        "faces_attribute_agreement_age_r",
        "diffusion from voice, 6 s",
        "correlation of the faces’ age with the speaker’s",
        "{0:.2f} ({1:.2f} to {2:.2f})",
        "0",
    ),
    (
        "embeddings_association_auc",
        "voice, 6 s",
        "the right face of two is picked",
        "{0:.0%} ({1:.0%} to {2:.0%})",
        "50%",
    ),
    (
        "embeddings_association_auc_same_gender",
        "voice, 6 s",
        "the same, when both are of one gender",
        "{0:.0%} ({1:.0%} to {2:.0%})",
        "50%",
    ),
)


def nearest(count: int, alike: float) -> str:
    """What stands below the nearest faces of the gallery.

    Args:
        count: how many faces it has.
        alike: the similarity that one pair of its members in twenty reaches.
    """
    return (
        f"The nearest of {count} faces, with their similarity. These people do not exist, so none "
        "of them can be who is speaking. 1.00 would be the same face; of two members picked at "
        f"random, one pair in twenty reaches {alike:.2f}."
    )


def measured(card: Path = CARD) -> str:
    """The table of how good the bundled weights are, from their card.

    Args:
        card (`Path`): a model card with a model-index, whose first result is that on the cast.

    Returns:
        HTML; "" if the weights come without such a card.
    """
    if not card.is_file():
        return ""
    facts = yaml.safe_load(card.read_text(encoding="utf-8").split("---", 2)[1])
    results = facts["model-index"][0]["results"][0]["metrics"]
    known = {(metric["type"], metric["args"]["system"]): metric for metric in results}
    rows = ""
    for kind, system, words, form, chance in FIGURES:
        if (metric := known.get((kind, system))) is not None:
            figure = form.format(metric["value"], *metric["args"]["interval"]).replace("-", "−")
            rows += f"<tr><th scope='row'>{words}</th><td>{figure}</td><td>{chance}</td></tr>"
    if not rows:
        return ""
    people = results[0]["args"]["speakers"]
    return (
        f"<div class='s2f-scroll' tabindex='0' role='group' aria-label='Figures'><table><caption>"
        f"Measured on {people} invented speakers whom the model never heard; in brackets, 95% "
        "intervals</caption><thead><tr><th scope='col'>what</th><th scope='col'>measured</th>"
        f"<th scope='col'>chance</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )
