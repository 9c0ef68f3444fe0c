"""What the builder makes of real clips: `python -m tests.benchmarks.clips FOLDER`.

FOLDER holds videos and a CLIPS.tsv with the columns file, kind ("positive": a person who speaks to
the camera, or "negative": must be refused) and group. The clips are nobody's training data, and no
threshold is set on them: this is the look at real video after the thresholds are fixed.
"""

import argparse
import csv
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line a clip, and the counts by group."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with videos and a CLIPS.tsv")
    options = parser.parse_args(arguments)

    from dataset_scripts.extraction import ExtractionConfig, extract_pairs
    from dataset_scripts.records import SourceVideo

    with open(options.folder / "CLIPS.tsv", encoding="utf-8", newline="") as file:
        clips = list(csv.DictReader(file, delimiter="\t"))
    as_wished, totals = defaultdict(Counter), Counter()
    for clip in clips:
        path = options.folder / clip["file"]
        video = SourceVideo(video_id=clip["file"], path=path, source="clips", licence="unknown")
        extraction = extract_pairs(video, ExtractionConfig())
        gave = bool(extraction.pairs)
        right = gave == (clip["kind"] == "positive")
        as_wished[clip["kind"], clip["group"]][right] += 1
        totals[clip["kind"], right] += 1
        reasons = Counter(refusal.reason for refusal in extraction.refusals)
        scores = " ".join(f"{pair['sync_score']:.1f}" for pair in extraction.pairs)
        said = [f"{len(extraction.pairs)} pairs ({scores})"] if gave else []
        said += [f"{reason} x{count}" for reason, count in sorted(reasons.items())]
        print(f"{'ok ' if right else 'NOT'} {clip['file']:58} {', '.join(said)}", flush=True)
    print()
    for (kind, group), counts in sorted(as_wished.items()):
        print(f"{kind:9} {group:14} {counts[True]:3} of {counts.total():3} as wished")
    for kind in ("positive", "negative"):
        count = totals[kind, True]
        print(f"{kind:9} {'all':14} {count:3} of {count + totals[kind, False]:3} as wished")


if __name__ == "__main__":
    main()
