"""Craniofacial correlation, as a module for `evaluate`."""

import datasets
import evaluate
import numpy as np

_CITATION = """\
@inproceedings{oh2019speech2face,
  title = {Speech2Face: Learning the Face Behind a Voice},
  author = {Oh, Tae-Hyun and Dekel, Tali and Kim, Changil and Mosseri, Inbar and Freeman, William T.
    and Rubinstein, Michael and Matusik, Wojciech},
  booktitle = {CVPR},
  year = {2019}
}

@book{farkas1994anthropometry,
  title = {Anthropometry of the Head and Face},
  author = {Farkas, Leslie G.},
  publisher = {Raven Press},
  year = {1994}
}
"""

_DESCRIPTION = """\
Pearson's r between twelve measurements (lip, jaw, nose, eyes, mouth) of two faces of each person,
taken from 68 landmarks, beside the same for faces exchanged among persons.
Every figure has a 95 % interval from a bootstrap over speakers.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: (N, 68, 2) landmarks of the made faces, pixels (x, y) on faces of 224 x 224,
        aligned alike; dlib's order.
    references: (N, 68, 2) landmarks of the faces that they are compared with.
    speakers: (N,) whose each row is.
    rounds: int, resamples of the bootstrap, 1000 by default.
    seed: int, of the resamples, 0 by default.

Returns:
    dict: `rounds`, `seed`, and for each measure a dict of value, interval (low, high; 95 %),
    speakers, samples and chance. Measures: `{measurement}_r` for twelve measurements, `mean_r`,
    `permuted_mean_r` (the paper's "random"), and `p`, the two-sided p by measurement on the first
    row of each speaker.

Example:
    >>> import evaluate
    >>> metric = evaluate.load("training/metrics/craniofacial_correlation")
    >>> figures = metric.compute(predictions=x, references=y, speakers=names)
"""

_ELSEWHERE = (
    "cannot import training.measures: run this from a clone of Speech2Face, or put the clone on "
    "PYTHONPATH"
)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class CraniofacialCorrelation(evaluate.Metric):
    def _info(self):
        landmarks = datasets.Array2D(shape=(68, 2), dtype="float32")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": landmarks,
                    "references": landmarks,
                    "speakers": datasets.Value("string"),
                }
            ),
        )

    def _compute(self, predictions, references, speakers, rounds=1000, seed=0):
        try:
            from training.measures import craniofacial
            from training.measures.resampling import SpeakerBootstrap
        except ModuleNotFoundError as error:
            raise ImportError(_ELSEWHERE) from error
        bootstrap = SpeakerBootstrap(speakers, rounds, seed)
        one, other = map(craniofacial.measure, (references, predictions))
        figures = craniofacial.craniofacial_correlation(bootstrap, one, other)
        first = np.unique(speakers, return_index=True)[1]
        return (
            {"rounds": rounds, "seed": seed}
            | {k: f.to_json() for k, f in figures.items()}
            | {"p": craniofacial.p_values(one[first], other[first])}
        )
