"""Every sentence of the page that is not an error."""

from .limits import KEPT_SECONDS, MAX_SECONDS

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

_CAN_AND_CANNOT = """
<h2 class="s2f-part">What a voice tells, and what not</h2>
<div class="s2f-two">
<div>
<h3>What it can tell</h3>
<p>{can}</p>
</div>
<div>
<h3>What it cannot tell</h3>
<p>{cannot}</p>
</div>
<div>
<h3>What it is not for</h3>
<p>Identifying, selecting or judging anyone: not for police work, hiring, insurance or medicine,
and not to make a picture of somebody who did not ask for one.</p>
</div>
</div>
"""
CAN_AND_CANNOT = _CAN_AND_CANNOT.format(
    can="How a listener would perceive the speaker’s gender, mostly. All faces of a voice share "
    "that; it is what the average and the bright areas show.",
    cannot="Who is speaking. Skin colour, ancestry, hair, eyes, build: they are drawn at random, "
    "which is why the faces differ. Age hardly shows in them either. The faces that the model "
    "learnt from are invented, and so is what in them goes with a voice.",
)
# Of weights that came from elsewhere.
CAN_AND_CANNOT_OF_OTHERS = _CAN_AND_CANNOT.format(
    can="What was measured of these weights, and no more: as a rule, how a listener would perceive "
    "the speaker’s gender. All faces of a voice share what it tells; it is what the average and "
    "the bright areas show.",
    cannot="Who is speaking. What a voice leaves open is drawn at random, which is why the faces "
    "differ. What these weights have learnt of voices and faces is that of the people whom they "
    "were trained on: their model card says who these were.",
)

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
