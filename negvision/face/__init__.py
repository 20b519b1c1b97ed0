"""Face recognition: backbones, margins, UNPG and its sharded classifier, data and verification."""
