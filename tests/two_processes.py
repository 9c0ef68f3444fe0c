"""`torchrun --nproc_per_node 2 -m tests.two_processes CONFIG.yaml[@STEP] ...`: one of two processes
of trainings, one after the other, of which each stops at its step if one is given."""

import sys
from unittest import mock

from accelerate import PartialState

from training.configuration import VoiceEncoderTraining, load_configuration
from training.train_voice_encoder import train

if __name__ == "__main__":
    # A training ends by leaving the other process, and the next one could not find it again.
    with mock.patch.object(PartialState, "destroy_process_group"):
        for word in sys.argv[1:]:
            path, _, step = word.partition("@")
            train(load_configuration(path, VoiceEncoderTraining), int(step) if step else None)
    PartialState().destroy_process_group()
