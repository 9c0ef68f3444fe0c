"""Attribute agreement, as a module for `evaluate`."""

import datasets
import evaluate

_CITATION = """\
@inproceedings{oh2019speech2face,
  title = {Speech2Face: Learning the Face Behind a Voice},
  author = {Oh, Tae-Hyun and Dekel, Tali and Kim, Changil and Mosseri, Inbar and Freeman, William T.
    and Rubinstein, Michael and Matusik, Wojciech},
  booktitle = {CVPR},
  year = {2019}
}
"""

_DESCRIPTION = """\
Whether a made face is read as the gender, the age group or another class of the original, and, with
the configuration "age", how near the age in years comes.
Every figure has a 95 % interval from a bootstrap over speakers.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: (N,) labels that a judge reads from the made faces; with "age", years.
    references: (N,) labels of the originals, "" where unknown; with "age", years or NaN.
    speakers: (N,) whose each row is.
    classes: all labels; by default those that occur. Not with "age".
    name: with which the measures' names begin, "gender" by default. Not with "age".
    rounds: int, resamples of the bootstrap, 1000 by default.
    seed: int, of the resamples, 0 by default.

Returns:
    dict: `rounds`, `seed`, and for each measure a dict of value, interval (low, high; 95 %),
    speakers, samples and chance. Measures: `{name}_accuracy`, `{name}_balanced_accuracy`,
    `{name}_accuracy_{class}`, and `confusion`, counts by true class (rows) and read class; with
    "age" `age_mae` (years), `age_r`, and the former for `age_group`.

Example:
    >>> import evaluate
    >>> metric = evaluate.load("training/metrics/attribute_agreement")
    >>> figures = metric.compute(predictions=["female"], references=["male"], speakers=["a"])
    >>> metric = evaluate.load("training/metrics/attribute_agreement", "age")
"""

_ELSEWHERE = (
    "cannot import training.measures: run this from a clone of Speech2Face, or put the clone on "
    "PYTHONPATH"
)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class AttributeAgreement(evaluate.Metric):
    def _info(self):
        value = datasets.Value("float64" if self.config_name == "age" else "string")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": value,
                    "references": value,
                    "speakers": datasets.Value("string"),
                }
            ),
        )

    def _compute(
        self, predictions, references, speakers, classes=None, name="gender", rounds=1000, seed=0
    ):
        try:
            from training.measures import attributes
            from training.measures.resampling import SpeakerBootstrap
        except ModuleNotFoundError as error:
            raise ImportError(_ELSEWHERE) from error
        bootstrap = SpeakerBootstrap(speakers, rounds, seed)
        if self.config_name == "age":
            figures = attributes.age_agreement(bootstrap, references, predictions)
            truth, read = map(attributes.age_group, (references, predictions))
            classes = attributes.AGE_GROUPS
        else:
            truth, read = references, predictions
            classes = classes or sorted({*truth, *read} - {""})
            figures = attributes.class_agreement(bootstrap, truth, read, classes, name)
        counts = attributes.confusion(truth, read, classes)
        others = {"confusion": {"classes": list(classes), "counts": counts.tolist()}}
        return (
            {"rounds": rounds, "seed": seed} | {k: f.to_json() for k, f in figures.items()} | others
        )
