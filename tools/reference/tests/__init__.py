"""Tests of the torch reference: `python -m unittest discover -s tools/reference/tests -t .`"""

import torch

torch.set_num_threads(1)  # the matrices are too small to share
