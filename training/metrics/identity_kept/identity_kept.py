"""Identity kept by a face decoder, as a module for `evaluate`."""

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
Cosine between the embedding of a generated face and the embedding that it was generated from.
Every figure has a 95 % interval from a bootstrap over speakers.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: (N, D) embeddings of the generated faces, centred by a mean face.
    references: (N, D) embeddings that were decoded, centred by the same mean.
    speakers: (N,) whose each row is.
    rounds: int, resamples of the bootstrap, 1000 by default.
    seed: int, of the resamples, 0 by default.

Returns:
    dict: `rounds`, `seed`, and for each measure a dict of value, interval (low, high; 95 %),
    speakers, samples and chance. Measures: `identity_cosine`.

Example:
    >>> import evaluate
    >>> metric = evaluate.load("training/metrics/identity_kept")
    >>> figures = metric.compute(predictions=x, references=y, speakers=names)
"""

_ELSEWHERE = (
    "cannot import training.measures: run this from a clone of Speech2Face, or put the clone on "
    "PYTHONPATH"
)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class IdentityKept(evaluate.Metric):
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
            from training.measures.generated_faces import identity_kept
            from training.measures.resampling import SpeakerBootstrap
        except ModuleNotFoundError as error:
            raise ImportError(_ELSEWHERE) from error
        bootstrap = SpeakerBootstrap(speakers, rounds, seed)
        figures = identity_kept(bootstrap, predictions, references)
        return {"rounds": rounds, "seed": seed} | {k: f.to_json() for k, f in figures.items()}
