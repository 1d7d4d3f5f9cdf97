"""The task that these tests train is the training tests' one: what it compiles to is shared."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "training"))
