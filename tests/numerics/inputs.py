"""What the probes are given: Fashion-MNIST images, perturbed by stated parts of their norm, on so many devices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import networks
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from deform_jax import data, warps

IMAGES = 16
CLOSENESS = (0.1, 1e-2, 1e-3, 1e-4)
DEVICES = (1, 2, 8)
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """One choice of dtype, number of devices, and norm of perturbations relative to the images'."""

    dtype: str = "float32"
    devices: int = 1
    closeness: float = 1e-2

    def place(self, tree, axis=0):
        """Every leaf in this dtype, spread over the devices along one axis where that divides, else on each."""
        mesh = jax.make_mesh(
            (self.devices,), ("data",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[: self.devices]
        )

        def put(leaf):
            spec = [None] * leaf.ndim
            if leaf.shape[axis] % self.devices == 0:
                spec[axis] = "data"
            return jax.device_put(jnp.asarray(leaf, self.dtype), NamedSharding(mesh, P(*spec)))

        return jax.tree.map(put, tree)

    def images(self):
        """Clean, deformed and noisy images (n, 32, 32, 1)."""
        return self.place(pictures(self.closeness))

    def rows(self):
        """The taps of the VGG of clean, deformed and noisy images, one row for each image: (n, features)."""
        return self.place(features(self.closeness))

    def params(self):
        """The VGG's, the same on every device."""
        return jax.tree.map(lambda x: jnp.asarray(x, self.dtype), networks.parameters())

    def kernels(self):
        """Of a VGG's middle layers: rough ones as at initialisation, and one that is nearly constant in space."""
        rng = np.random.default_rng(1)
        rough = rng.normal(size=(3, 3, 32, 64)) / np.sqrt(288)
        smooth = rng.normal(size=(1, 1, 32, 64)) + self.closeness * rng.normal(size=(3, 3, 32, 64))
        return self.place({"rough": np.float32(rough), "smooth": np.float32(smooth)}, axis=-1)

    def tree(self):
        """Parameters as Flax has them, with biases."""
        rng = np.random.default_rng(2)
        layer = {name: {"kernel": kernel} for name, kernel in self.kernels().items()}
        layer["rough"]["bias"] = self.place(np.float32(rng.normal(size=64)))
        return layer


@functools.cache
def pictures(closeness):
    """Test images, standardised, with deformations and noise scaled to a part of each image's norm; float32."""
    embedded = data.load("fashion_mnist_subset").test_images[:IMAGES].astype(np.float32) / 255
    images = (embedded - embedded.mean()) / embedded.std()
    keys = jax.random.split(jax.random.key(0), IMAGES)
    deformed = np.asarray(jax.jit(jax.vmap(warps.random_max_entropy()))(keys, images))
    noise = np.random.default_rng(0).normal(size=images.shape)
    versions = [images]
    for change in (deformed - images, noise):
        size = [
            networks.norm(x.astype(float)) / networks.norm(c.astype(float)) for x, c in zip(images, change, strict=True)
        ]
        versions.append((images + closeness * np.reshape(size, (-1, 1, 1, 1)) * change).astype(np.float32))
    return tuple(versions)


@functools.cache
def features(closeness):
    """The taps of each version, computed in float64, rounded to float32 and joined."""
    taps = [networks.exact(networks.parameters(), images)[0] for images in pictures(closeness)]
    return tuple(
        np.concatenate([tap.reshape(IMAGES, -1) for tap in each.values()], 1).astype(np.float32) for each in taps
    )


WIDTHS = {"input": 1024, "conv1": 8192, "conv2": 4096, "conv3": 1024, "logits": 10}
