"""Similarity of predicted and actual face embeddings.

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
Angle, cosine, L1 and L2 between predicted and actual embeddings, on unit vectors.
Every figure has a 95 % interval from a bootstrap over speakers.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: (N, D) predicted embeddings.
    references: (N, D) the embeddings that they should be. Centre both by one mean face.
    speakers: (N,) whose each row is.
    rounds: int, resamples of the bootstrap, 1000 by default.
    seed: int, of the resamples, 0 by default.

Returns:
    dict: `rounds`, `seed`, and for each measure a dict of value, interval (low, high; 95 %),
    speakers, samples and chance. Measures: `angle` (degrees), `cosine`, `l1`, `l2`.

Example:
    >>> import evaluate
    >>> metric = evaluate.load("training/metrics/feature_similarity")
    >>> figures = metric.compute(predictions=[[1.0, 0.0]], references=[[0.0, 1.0]], speakers=["a"])
"""

_ELSEWHERE = (
    "cannot import training.measures: run this from a clone of Speech2Face, or put the clone on "
    "PYTHONPATH"
)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class FeatureSimilarity(evaluate.Metric):
    def _info(self):
        vector = datasets.Sequence(datasets.Value("float32"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": vector,
                    "references": vector,
                    "speakers": datasets.Value("string"),
                }
            ),
        )

    def _compute(self, predictions, references, speakers, rounds=1000, seed=0):
        try:
            from training.measures.resampling import SpeakerBootstrap
            from training.measures.similarity import feature_similarity
        except ModuleNotFoundError as error:
            raise ImportError(_ELSEWHERE) from error
        bootstrap = SpeakerBootstrap(speakers, rounds, seed)
        figures = feature_similarity(bootstrap, np.asarray(predictions), np.asarray(references))
        return {"rounds": rounds, "seed": seed} | {k: f.to_json() for k, f in figures.items()}
