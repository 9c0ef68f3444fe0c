"""Consistency of predictions over a speaker's recordings.

A module of the library `evaluate`; the arithmetic is in `training/measures`.
"""

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
"""

_DESCRIPTION = """\
Mean cosines between predictions from recordings of one speaker and of different speakers, and
whether the prediction alone tells that two recordings are of one speaker.
Every figure has a 95 % interval from a bootstrap over speakers.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: (N, D) embeddings predicted from recordings, centred.
    speakers: (N,) whose recording each is; some speakers need two.
    genders: (N,) labels, "" unknown, for the figures among one gender; left out by default.
    rounds: int, resamples of the bootstrap, 1000 by default.
    seed: int, of the resamples, 0 by default.

Returns:
    dict: `rounds`, `seed`, and for each measure a dict of value, interval (low, high; 95 %),
    speakers, samples and chance. Measures: `within`, `between`, `same_speaker_auc`, and
    with genders `between_same_gender`, `same_speaker_auc_same_gender`.

Example:
    >>> import evaluate
    >>> metric = evaluate.load("training/metrics/consistency")
    >>> figures = metric.compute(predictions=x, speakers=names)
"""

_ELSEWHERE = (
    "cannot import training.measures: run this from a clone of Speech2Face, or put the clone on "
    "PYTHONPATH"
)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class Consistency(evaluate.Metric):
    def _info(self):
        vector = datasets.Sequence(datasets.Value("float32"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": vector,
                    "speakers": datasets.Value("string"),
                }
            ),
        )

    def _compute(self, predictions, speakers, genders=None, rounds=1000, seed=0):
        try:
            from training.measures.consistency import consistency
            from training.measures.resampling import SpeakerBootstrap
        except ModuleNotFoundError as error:
            raise ImportError(_ELSEWHERE) from error
        if genders is not None and len(genders) != len(speakers):
            raise ValueError(f"genders needs one label for each of the {len(speakers)} rows")
        bootstrap = SpeakerBootstrap(speakers, rounds, seed)
        figures = consistency(bootstrap, np.asarray(predictions), speakers, genders)
        return {"rounds": rounds, "seed": seed} | {k: f.to_json() for k, f in figures.items()}
