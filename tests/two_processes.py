"""`torchrun --nproc_per_node 2 -m tests.two_processes CONFIG.yaml [STEP]`: one of two processes
of a training, which stops at a step if one is given."""

import sys

from training.configuration import VoiceEncoderTraining, load_configuration
from training.train_voice_encoder import train

if __name__ == "__main__":
    train(load_configuration(sys.argv[1], VoiceEncoderTraining), *map(int, sys.argv[2:]))
