"""Networks of every kind, probed by the same two calls, and as numpy says; ``other_networks.py`` is what to read."""

import equinox as eqx
import jax
import numpy as np
import pytest
from flax import nnx
from jax.tree_util import Partial
from other_networks import BUILDERS, equinox, haiku, into_nnx, nnx_module, plain, torch_file, torch_network

from deform_jax import probes

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(5, 8, 8, 2)).astype(np.float32)
DEFORMED, NOISY = ((IMAGES + size * RNG.normal(size=IMAGES.shape)).astype(np.float32) for size in (0.2, 0.3))
NAMES = ["input", "conv", "norm", "output"]


def measure(represent):
    """LS's sensitivity and SI's D, G and R: the two calls."""
    sensitivity = probes.sensitivity(represent, IMAGES, DEFORMED)
    relative = probes.relative_sensitivity(represent, IMAGES, DEFORMED, NOISY)
    return sensitivity, *relative


def draw(seed):
    """Parameters as Flax has them, kernels (h, w, in, out) and (in, out), and the averages of batch norm."""
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    conv, norm = {"kernel": normal(3, 3, 2, 3), "bias": normal(3)}, {"scale": 1 + normal(3) ** 2, "bias": normal(3)}
    params = {"conv": conv, "norm": norm, "head": {"kernel": normal(3, 4), "bias": normal(4)}}
    return params, {"mean": normal(3), "var": 5 + normal(3) ** 2}


def taps(params, stats, images):
    """The network in float64, written out."""
    padded = np.pad(np.float64(images), ((0, 0), (1, 1), (1, 1), (0, 0)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    params, stats = jax.tree.map(np.float64, (params, stats))
    conv = np.einsum("nhwcij,ijco->nhwo", patches, params["conv"]["kernel"]) + params["conv"]["bias"]
    norm = (conv - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * params["norm"]["scale"] + params["norm"]["bias"]
    output = np.maximum(norm, 0).mean((1, 2)) @ params["head"]["kernel"] + params["head"]["bias"]
    return {"input": np.float64(images), "conv": conv, "norm": norm, "output": output}


def expected(params, stats, represent=taps):
    """All four measures by their formulas."""
    clean, deformed, noisy = (
        {name: np.float64(x).reshape(5, -1) for name, x in represent(params, stats, images).items()}
        for images in (IMAGES, DEFORMED, NOISY)
    )

    def measured(distance, average, moved):
        found = {}
        for name, x in clean.items():
            pairs = [distance(x[i], x[j]) for i in range(5) for j in range(i)]
            found[name] = np.mean([distance(a, b) for a, b in zip(x, moved[name], strict=True)]) / average(pairs)
        return found

    cosine = measured(lambda a, b: 1 - a @ b / np.sqrt((a @ a) * (b @ b)), np.median, deformed)
    d, g = (measured(lambda a, b: ((a - b) ** 2).sum(), np.mean, moved) for moved in (deformed, noisy))
    return cosine, d, g, {name: d[name] / g[name] for name in d}


def assert_as_expected(results, network, **options):
    for result, reference in zip(results, expected(*network, **options), strict=True):
        assert list(result) == NAMES
        for name in NAMES:
            # Float32 rounding of taps, against cosine distances of 0.01 and more.
            np.testing.assert_allclose(result[name], reference[name], rtol=2e-4, err_msg=name)


@pytest.mark.parametrize("build", BUILDERS)
def test_every_kind_of_network_is_probed_as_numpy_says(build):
    for seed in (1, 2):
        assert_as_expected(measure(build(*draw(seed))), draw(seed))


@pytest.mark.parametrize("build", BUILDERS)
def test_every_kind_of_network_is_probed_within_a_jitted_function(build):
    """What is compiled takes the network as an argument: another one needs no other program.

    Equinox's modules hold more than arrays, for which it has a ``jit`` of its own.
    """
    traces = []

    @(eqx.filter_jit if build is equinox else jax.jit)
    def sensitivity(represent):
        traces.append(represent)
        return probes.sensitivity(represent, IMAGES, DEFORMED, distance="squared", normaliser="mean")

    for seed in (1, 2):
        found, (_, reference, *_) = sensitivity(build(*draw(seed))), expected(*draw(seed))
        assert list(found) == NAMES
        np.testing.assert_allclose(list(found.values()), list(reference.values()), rtol=2e-4)
    assert len(traces) == 1


def test_a_torch_network_s_own_hooks_give_what_its_file_gives():
    """The network as PyTorch runs it, its layers' outputs caught by hooks, measured by the formulas."""
    torch = pytest.importorskip("torch")

    def hooked(params, stats, images):
        net, caught = torch_network(params, stats), {"input": images}
        for name, place in (("conv", 0), ("norm", 1), ("output", 6)):
            net[place].register_forward_hook(lambda _, __, tap, name=name: caught.update({name: tap.detach().numpy()}))
        net(torch.tensor(images).permute(0, 3, 1, 2))
        return caught

    assert_as_expected(measure(torch_file(*draw(1))), draw(1), represent=hooked)


def test_a_network_probed_before_and_after_a_change_in_place():
    """NNX modules and dicts of parameters change in place; nothing of the first probe may come back."""
    net, (params, stats) = nnx_module(*draw(1)), draw(1)
    bound, closed = Partial(plain, params, stats), lambda images: plain(params, stats, images)
    assert_as_expected(measure(net), draw(1))
    into_nnx(net, *draw(2))
    assert_as_expected(measure(net), draw(2))
    for represent in (bound, closed):
        for seed in (1, 3):
            changed = draw(seed)
            params.update(changed[0])
            stats.update(changed[1])
            results = measure(represent)
            assert_as_expected(results, draw(seed))


@pytest.mark.parametrize("build", BUILDERS)
def test_two_networks_of_one_kind_share_what_is_compiled(build):
    """The arrays apart, both are the same: structure, and leaves that are no arrays."""
    (first, structure), (second, same) = (jax.tree.flatten(build(*draw(seed))) for seed in (1, 2))
    assert structure == same
    assert hash(structure) == hash(same)
    assert not jax.tree_util.treedef_is_leaf(structure)
    fixed = [[leaf for leaf in leaves if not eqx.is_array_like(leaf)] for leaves in (first, second)]
    assert fixed[0] == fixed[1]


KERNELS = {
    "nnx": lambda *network: nnx.state(nnx_module(*network), nnx.Param),
    "haiku": lambda *network: haiku(*network).args[1],
    "equinox": lambda *network: {"conv": {"kernel": equinox(*network).args[0].conv.weight.transpose(2, 3, 1, 0)}},
    "torch": lambda *network: {"conv": {"kernel": torch_file(*network).args[0]["0.weight"].transpose(2, 3, 1, 0)}},
}


@pytest.mark.parametrize("kind", KERNELS)
def test_filter_statistics_of_every_kind(kind):
    """By name where kernels are Flax's or Haiku's; elsewhere weights are renamed and transposed to (h, w, in, out)."""
    wanted = probes.filter_statistics(draw(1)[0], probes.total_variation)
    assert list(wanted) == ["conv"]
    assert probes.filter_statistics(KERNELS[kind](*draw(1)), probes.total_variation) == wanted
