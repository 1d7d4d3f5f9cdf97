"""What is measured: the works, their contenders, and the targets that the ratios are held against."""

from jobs import Contender, Target, Work

OURS = "deform_jax"
PLAIN = "deform_jax, allocator as the system has it"
SAMPLING = "deform_jax, sampling alone"
CHUNKED = "deform_jax, chunk=8"
CIFAR10 = ((2, 32), (2, 64), (2, 128), (2, 256))
VGG16 = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
SMALL = ((1, 4), (1, 8))


def ours(maker, name=OURS, **settings):
    return Contender(name, f"ours:{maker}", is_ours=True, **settings)


def chunks(*sizes, **others):
    return tuple({"chunk": size, **others} for size in sizes)


LAYOUTS = ({"channels_last": True}, {"channels_last": False})
SHARED = {"choices": ({"devices": 1}, {"devices": 2}), "simulate": True}
TORCH_BASIS = "torch basis + grid_sample"


def max_entropy(*, count, size, displacement, times):
    peer = "torch, image by image"
    return Work(
        name=f"max_entropy_{size}",
        title=f"maximum entropy, {count} × {size}×{size}×3",
        unit="images/s",
        sizes={"count": count, "size": size, "displacement": displacement, "cutoff": 3},
        smoke={"count": 8, "size": 16, "displacement": 1.0, "cutoff": 3},
        tolerance=2e-4,
        contenders=(
            ours("max_entropy"),
            ours("max_entropy_sampling", SAMPLING),
            Contender(peer, "peers_torch:max_entropy_loop"),
        ),
        targets=(Target(OURS, peer, times),),
    )


def train_step(downsampling, title):
    return Work(
        name=f"train_{downsampling}",
        title=f"training step, CIFAR10 network, batch 128, {title}",
        unit="images/s",
        sizes={"count": 128, "size": 32, "blocks": CIFAR10, "downsampling": downsampling},
        smoke={"count": 8, "size": 8, "blocks": SMALL, "downsampling": downsampling},
        tolerance=2e-2,
        contenders=(ours("train_step", **SHARED), Contender("torch", "peers_torch:train_step", LAYOUTS)),
        targets=(Target(OURS, "torch", 1),),
    )


def convolutions(what):
    """Of what the training step's time is made."""
    return Work(
        name="convolutions_" + what.replace(" ", "_"),
        title=f"the CIFAR10 network's convolutions alone, {what}",
        unit="images/s",
        sizes={"count": 128, "size": 32, "blocks": CIFAR10, "what": what},
        smoke={"count": 4, "size": 8, "blocks": SMALL, "what": what},
        tolerance=1e-4,
        contenders=(ours("convolutions"), Contender("torch", "peers_torch:convolutions", LAYOUTS)),
    )


WORKS = (
    Work(
        name="tps_224",
        title="TPS, 128 × 224×224×3, 5×5",
        unit="images/s",
        sizes={"count": 128, "size": 224, "grid": 5, "bound": 10.0},
        smoke={"count": 4, "size": 24, "grid": 5, "bound": 2.0},
        tolerance=2e-4,
        contenders=(
            ours("tps"),
            ours("tps_sampling", SAMPLING),
            ours("tps", PLAIN, reuse=False),
            Contender(TORCH_BASIS, "peers_torch:tps_basis", chunks(1, 2, 4, 8, 16, 32, 128)),
            Contender(
                TORCH_BASIS + ", allocator as the system has it",
                "peers_torch:tps_basis",
                chunks(1, 2, 4, 8, 16, 32, 128),
                reuse=False,
            ),
            Contender("OpenCV remap on our basis", "peers_arrays:opencv"),
            Contender("scikit-image warp on our basis", "peers_arrays:scikit_image", ({"part": 16},)),
            Contender("scipy map_coordinates on our basis", "peers_arrays:scipy", ({"part": 16},)),
            Contender("kornia", "peers_torch:tps_kornia", chunks(1, 2, 4, part=4)),
        ),
        targets=(
            Target(OURS, "kornia", 25),
            Target(OURS, TORCH_BASIS, 2),
            Target(OURS, TORCH_BASIS + ", allocator as the system has it", 2),
            Target(OURS, "OpenCV remap on our basis", 2),
        ),
    ),
    Work(
        name="tps_32",
        title="TPS, 1024 × 32×32×3, 3×3",
        unit="images/s",
        sizes={"count": 1024, "size": 32, "grid": 3, "bound": 2.0},
        smoke={"count": 8, "size": 16, "grid": 3, "bound": 2.0},
        tolerance=2e-4,
        contenders=(
            ours("tps"),
            ours("tps_sampling", SAMPLING),
            Contender(TORCH_BASIS, "peers_torch:tps_basis", chunks(64, 128, 256, 1024)),
            Contender("OpenCV remap on our basis", "peers_arrays:opencv"),
            Contender("scikit-image warp on our basis", "peers_arrays:scikit_image", ({"part": 8},)),
            Contender("scipy map_coordinates on our basis", "peers_arrays:scipy", ({"part": 8},)),
            Contender("kornia", "peers_torch:tps_kornia", chunks(16, 32, 64)),
        ),
        targets=(Target(OURS, "kornia", 20), Target(OURS, TORCH_BASIS, 1)),
    ),
    max_entropy(count=1024, size=32, displacement=1.0, times=50),
    max_entropy(count=128, size=224, displacement=3.0, times=10),
    train_step("max", "max-pool"),
    train_step("strided", "strided"),
    convolutions("forward"),
    convolutions("input gradient"),
    convolutions("weight gradient"),
    Work(
        name="simple_cnn",
        title="training step, 1-D simple CNN, H = 1000, depth 12, batch 8",
        unit="steps/s",
        sizes={"count": 8, "length": 32, "layers": 12, "width": 1000, "filter_size": 3},
        smoke={"count": 4, "length": 9, "layers": 2, "width": 8, "filter_size": 3},
        tolerance=2e-2,
        contenders=(
            ours("simple_cnn"),
            ours("simple_cnn_products", "deform_jax, matrix products alone"),
            Contender("torch", "peers_torch:simple_cnn"),
        ),
        targets=(Target(OURS, "torch", 1.4),),
    ),
    Work(
        name="sensitivity_cifar",
        title="sensitivity, CIFAR10 network, 128 + 128 images",
        unit="images/s",
        sizes={"count": 128, "size": 32, "blocks": CIFAR10},
        smoke={"count": 6, "size": 8, "blocks": SMALL},
        tolerance=5e-3,
        contenders=(
            ours("sensitivity"),
            ours("forward", "deform_jax, forward passes alone"),
            Contender("torch hooks", "peers_torch:sensitivity_hooks", LAYOUTS),
            Contender("torch layer by layer", "peers_torch:sensitivity_layers", LAYOUTS),
        ),
        targets=(Target(OURS, "torch layer by layer", 1), Target(OURS, "torch hooks", 1)),
    ),
    Work(
        name="sensitivity_224",
        title="sensitivity, VGG16-size network at 224 px, 32 + 32 images",
        unit="images/s",
        sizes={"count": 32, "size": 224, "blocks": VGG16},
        smoke={"count": 4, "size": 8, "blocks": SMALL},
        tolerance=5e-3,
        contenders=(
            ours("sensitivity"),
            ours("sensitivity", CHUNKED, choices=({"chunk": 8},)),
            Contender("torch hooks", "peers_torch:sensitivity_hooks", ({"channels_last": True},)),
            Contender("torch layer by layer", "peers_torch:sensitivity_layers", ({"channels_last": True},)),
        ),
        targets=(
            Target(OURS, "torch hooks", 1 / 0.6),
            Target(CHUNKED, "torch layer by layer", 1, of="memory"),
        ),
    ),
    Work(
        name="sensitivity_224_large",
        title="sensitivity, VGG16-size network at 224 px, 128 + 128 images",
        unit="images/s",
        sizes={"count": 128, "size": 224, "blocks": VGG16},
        smoke={"count": 4, "size": 8, "blocks": SMALL},
        tolerance=5e-3,
        contenders=(ours("sensitivity", CHUNKED, choices=({"chunk": 8},)),),
        targets=(Target(CHUNKED, "", 8, of="GiB"),),
        repeats=1,
    ),
)
