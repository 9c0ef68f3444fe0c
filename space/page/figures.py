"""What was measured of the weights that the page uses: the figures of their model card."""

import logging
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from .weights import is_bundled

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

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
        "{0:z.2f} ({1:z.2f} to {2:z.2f})",  # z: no minus before 0.00
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

logger = logging.getLogger(__name__)


def figures(name_or_path: str) -> str:
    """The table of how good weights are, from the card that lies beside them.

    Args:
        name_or_path: where they were loaded from: a folder, or a repository on the Hub.

    Returns:
        HTML; "" where there is no card, it cannot be had, or it names no figure that the page
        explains.
    """
    from huggingface_hub import ModelCard

    if not name_or_path:
        return ""
    folder = Path(name_or_path)
    try:
        card = ModelCard.load(folder / "README.md" if folder.is_dir() else name_or_path)
        return table(card.data.eval_results or (), is_bundled(name_or_path))
    except Exception as error:  # the Hub's, or of a card that anybody wrote: the page starts
        logger.warning("no figures of %s are shown: %s", name_or_path, type(error).__name__)
        return ""


def table(results: Sequence["EvalResult"], are_bundled: bool) -> str:
    """The figures that the page explains, of the first data set that a card names.

    Args:
        results: of the card.
        are_bundled: whether it is that of the weights which come with the package.

    Returns:
        HTML; "" if there are none.

    Raises:
        KeyError, TypeError, ValueError: for figures that `training.model_card` did not write.
    """
    known = {
        (result.metric_type, result.metric_args["system"]): result
        for result in results
        if result.dataset_name == results[0].dataset_name
    }
    rows, people = "", 0
    for kind, system, words, form, chance in FIGURES:
        if (result := known.get((kind, system))) is not None:
            shown = form.format(result.metric_value, *result.metric_args["interval"])
            people = int(result.metric_args["speakers"])
            rows += f"<tr><th scope='row'>{words}</th><td>{shown.replace('-', '−')}</td>"
            rows += f"<td>{chance}</td></tr>"
    if not rows:
        return ""
    whom = f"{people} invented speakers whom the model never heard"
    if not are_bundled:
        data = escape(" ".join(filter(None, [results[0].dataset_name, results[0].dataset_split])))
        whom = f"{people} speakers of the data “{data}”, as the card of these weights says"
    return (
        f"<div class='s2f-scroll' tabindex='0' role='group' aria-label='Figures'><table><caption>"
        f"Measured on {whom}; in brackets, 95% intervals</caption><thead><tr>"
        "<th scope='col'>what</th><th scope='col'>measured</th><th scope='col'>chance</th></tr>"
        f"</thead><tbody>{rows}</tbody></table></div>"
    )
