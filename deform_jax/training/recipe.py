"""How a network is trained, as one frozen value."""

import dataclasses
from typing import Any

import jax
import optax

from deform_jax import checks
from deform_jax.typing import PyTree


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Optimiser settings; the defaults are our reading of LS.

    LS does not publish its recipe: SGD 0.1 with momentum 0.9, cosine decay to 0, weight decay 5e-4 on kernels only,
    batches of 128 for 100 epochs are our reading (they are SI's, with fewer epochs).

    Attributes:
      learning_rate: at the start (after the warm-up).
      momentum: of SGD, 0 for none; Adam's β₁, below 1.
      weight_decay: coefficient of ½‖w‖² over kernels (not biases, not batch norm). Its gradient is added to the
        loss's, before momentum or Adam's moments, as in PyTorch's ``SGD`` and ``Adam`` (not ``AdamW``).
      schedule: ``"cosine"`` (reaching 0 after the last step) or ``"constant"``.
      warmup_epochs: linear warm-up from 0, in epochs.
      batch_size: images per step over all devices of the ``data`` axis together.
      epochs: passes over the training set; the last incomplete batch of each is dropped.
      stop_accuracy: training accuracy (0 to 1, over one epoch, as trained on) after which a network is done before
        its last epoch, or None. For tasks that are to be fitted, such as random labels; other seeds go on.
      label_smoothing: the part (0 to below 1) of each label's weight that is spread over all classes in the training
        loss; 0 leaves the labels as they are, as in both papers. Evaluation never smooths.
      loss: ``"cross_entropy"``; or ``"hinge"``, for networks of one output and labels 0 and 1 (SI B.1, B.2).
      stop_interpolation: a network is done after so many times the epochs after which the mean training loss of an
        epoch first was exactly 0 (500 in SI B.2), or after ``epochs`` of them; None: after ``epochs``. With a hinge
        loss; other seeds go on.
      method: ``"sgd"`` or ``"adam"`` (Kingma & Ba 2014, arXiv 1412.6980, β₂ = 0.999, ε = 1e-8). SI appendix B.1 trains
        fully connected networks by Adam at 0.1, a rate that suits the NTK parametrisation.
    """

    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "cosine"
    warmup_epochs: float = 0.0
    batch_size: int = 128
    epochs: int = 100
    stop_accuracy: float | None = None
    label_smoothing: float = 0.0
    method: str = "sgd"
    loss: str = "cross_entropy"
    stop_interpolation: int | None = None

    def __post_init__(self) -> None:
        checks.number("learning_rate", self.learning_rate, minimum=0, exclusive=True)
        checks.number("momentum", self.momentum, minimum=0, maximum=1)
        checks.number("weight_decay", self.weight_decay, minimum=0)
        checks.option("schedule", self.schedule, ("cosine", "constant"))
        checks.integer("batch_size", self.batch_size, minimum=1)
        checks.integer("epochs", self.epochs, minimum=1)
        checks.number("warmup_epochs", self.warmup_epochs, minimum=0, maximum=self.epochs)
        if self.stop_accuracy is not None:
            checks.number("stop_accuracy", self.stop_accuracy, minimum=0, maximum=1)
        checks.number("label_smoothing", self.label_smoothing, minimum=0)
        if self.label_smoothing >= 1:
            checks.fail("label_smoothing", "be below 1", f"{self.label_smoothing} was given")
        checks.option("loss", self.loss, ("cross_entropy", "hinge"))
        if self.loss == "hinge" and self.label_smoothing:
            checks.fail("label_smoothing", "be 0 with a hinge loss", f"{self.label_smoothing} was given")
        if self.stop_interpolation is not None:
            checks.integer("stop_interpolation", self.stop_interpolation, minimum=1)
            if self.loss != "hinge":
                remedy = 'Use `loss="hinge"`, or `stop_accuracy`.'
                checks.fail("stop_interpolation", "be None", f"cross-entropy is never exactly 0, for {self}", remedy)
        checks.option("method", self.method, ("sgd", "adam"))
        if self.method == "adam" and self.momentum >= 1:
            checks.fail("momentum", "be below 1 for Adam", f"{self.momentum} was given", "It is β₁; 0.9 is customary.")

    def optimizer(self, steps_per_epoch: int) -> optax.GradientTransformation:
        """Return the optax transformation for epochs of that many steps, up to 2³¹ − 1 in all."""
        steps_per_epoch = checks.integer("steps_per_epoch", steps_per_epoch, minimum=1)
        if int(self.epochs) * steps_per_epoch > 2**31 - 1:  # of which the state counts the steps
            given = f"they would make {self.epochs} × {steps_per_epoch} steps"
            checks.fail("epochs", "make at most 2³¹ − 1 steps", given, "Train fewer epochs.")
        total, warmup = self.epochs * steps_per_epoch, round(self.warmup_epochs * steps_per_epoch)
        rate: Any = optax.constant_schedule(self.learning_rate)
        if self.schedule == "cosine":
            rate = optax.cosine_decay_schedule(self.learning_rate, max(1, total - warmup))
        if warmup:
            rate = optax.join_schedules([optax.linear_schedule(0.0, self.learning_rate, warmup), rate], [warmup])
        rule = optax.adam(rate, b1=self.momentum) if self.method == "adam" else optax.sgd(rate, self.momentum or None)
        return optax.chain(optax.add_decayed_weights(self.weight_decay, mask=_kernels), rule)


def _kernels(params: PyTree) -> PyTree:
    return jax.tree_util.tree_map_with_path(lambda path, _: getattr(path[-1], "key", None) == "kernel", params)
