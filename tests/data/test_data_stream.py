"""Sets streamed by grain: real photographs in ImageNet's form, and images of one colour, which say their number."""

import io
import itertools
import json
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tfds_toys import encoded, examples, prepare

from deform_jax import data

COUNT, TEST = 50, 11


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Images of different sizes whose pixels all are their number, 0 to 49, and its last digit as label."""
    folder = tmp_path_factory.mktemp("numbered")

    def images(count):
        return [(np.full((8 + i % 5, 9 + i % 3, 3), i, np.uint8), i % 10) for i in range(count)]

    label = tfds.features.ClassLabel(num_classes=10)
    prepare(folder, "numbered", {"train": images(COUNT), "test": images(TEST)}, label=label)
    return folder


def numbers(batch):
    """The numbers of a batch's images, after checking that they, their labels and types are right."""
    images, labels = batch["images"], batch["labels"]
    assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
    assert (images == images[:, :1, :1, :1]).all()  # no crop, flip or resizing changes one colour
    np.testing.assert_array_equal(images[:, 0, 0, 0] % 10, labels)
    return images[:, 0, 0, 0].tolist()


def take(batches, count):
    taken = [next(batches) for _ in range(count)]
    batches.close()
    return taken


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        for name in ("images", "labels"):
            np.testing.assert_array_equal(batch[name], other[name], strict=True)


def test_the_photographs_are_described_without_tensorflow(photographs):
    stream = data.stream("photographs", folder=photographs, size=24)
    assert (stream.num_classes, stream.train_count, stream.test_count) == (10, 40, 10)
    assert (stream.image_shape, stream.train_split, stream.test_split) == ((24, 24, 3), "train", "validation")
    assert stream == data.stream("photographs", folder=photographs, size=24)
    (batch,) = take(stream.train_batches(0, 8), 1)
    assert batch["images"].shape == (8, 24, 24, 3)
    assert batch["images"].std() > 20
    assert "tensorflow" not in sys.modules


def test_every_epoch_has_an_order_of_its_own_without_repetition(numbered):
    stream = data.stream("numbered", folder=numbered, size=4)
    orders = {}
    for seed in (0, 1):
        taken = [numbers(batch) for batch in take(stream.train_batches(seed, 8), 18)]
        for epoch in range(3):
            orders[seed, epoch] = list(itertools.chain(*taken[6 * epoch : 6 * epoch + 6]))
            assert len(set(orders[seed, epoch])) == 48  # of 50: the remainder is dropped
    assert len({tuple(order) for order in orders.values()}) == 6  # also not seed 0's next epoch as seed 1's first
    (again,) = take(stream.train_batches(1, 48), 1)
    assert numbers(again) == orders[1, 0]


def test_hosts_share_out_each_batch(numbered, monkeypatch):
    stream = data.stream("numbered", folder=numbered, size=4)
    whole = [numbers(batch) for batch in take(stream.train_batches(3, 12), 9)]
    parts = [[numbers(batch) for batch in take(stream.train_batches(3, 12, shard=(i, 3)), 9)] for i in range(3)]
    for step, batch in enumerate(whole):
        assert [len(part[step]) for part in parts] == [4, 4, 4]
        assert sorted(itertools.chain(*(part[step] for part in parts))) == sorted(batch)
    monkeypatch.setattr("jax.process_index", lambda: 1)
    monkeypatch.setattr("jax.process_count", lambda: 3)
    assert [numbers(batch) for batch in take(stream.train_batches(3, 12), 9)] == parts[1]
    with pytest.raises(ValueError, match=r"`batch_size` must be divisible by the 3 hosts, but 8"):
        stream.train_batches(3, 8)


def test_hosts_make_the_crops_that_one_host_makes(photographs):
    stream = data.stream("photographs", folder=photographs, size=16)
    whole = take(stream.train_batches(5, 8), 7)  # into the second epoch
    parts = [take(stream.train_batches(5, 8, shard=(i, 2)), 7) for i in range(2)]
    joined = [
        {name: np.stack([one[name], other[name]], axis=1).reshape(batch[name].shape) for name in batch}
        for batch, one, other in zip(whole, *parts, strict=True)
    ]
    assert_same(whole, joined)


def test_workers_make_the_crops_that_threads_make(photographs):
    threads, workers = (data.stream("photographs", folder=photographs, size=16, worker_count=k) for k in (0, 2))
    assert_same(take(threads.train_batches(2, 8), 7), take(workers.train_batches(2, 8), 7))


def test_an_epoch_repeats_no_crop(photographs):
    stream = data.stream("photographs", folder=photographs, size=16)
    one, two = take(stream.train_batches(0, 40), 2)
    means = [np.sort(batch["images"].mean((1, 2, 3))) for batch in (one, two)]  # one whole epoch each
    assert (np.abs(means[0] - means[1]) > 0.1).mean() > 0.8


def test_an_iterator_goes_on_from_its_state(photographs):
    stream = data.stream("photographs", folder=photographs, size=16)
    whole = take(stream.train_batches(4, 8), 9)
    batches = stream.train_batches(4, 8)
    assert batches.state()["batches"] == 0
    for taken in (0, 3, 4, 5, 7):  # within an epoch of five batches, at its end and beyond
        while batches.state()["batches"] < taken:
            next(batches)
        state = json.loads(json.dumps(batches.state()))
        assert_same(take(stream.train_batches(4, 8, state=state), 2), whole[taken : taken + 2])
    batches.close()
    batches.close()
    with pytest.raises(ValueError, match=r"`state` must be of the same stream, seed and batch size.* seed 4 instead"):
        stream.train_batches(5, 8, state=state)
    for wrong in ({"batches": 3}, 3):
        with pytest.raises(TypeError, match=r"`state` must be what `state\(\)` of such an iterator returned"):
            stream.train_batches(4, 8, state=wrong)


def test_evaluation_sees_every_image_once_and_in_order(numbered):
    stream = data.stream("numbered", folder=numbered, size=4)
    batches = list(stream.test_batches(4))
    assert [batch["images"].shape for batch in batches] == 3 * [(4, 4, 4, 3)]
    labels = np.concatenate([batch["labels"] for batch in batches])
    assert (labels[:TEST] >= 0).all()
    assert labels[TEST:].tolist() == [-1]
    assert not batches[-1]["images"][-1].any()
    images = np.concatenate([batch["images"] for batch in batches])
    order = numbers({"images": images[:TEST], "labels": labels[:TEST]})
    assert sorted(order) == list(range(TEST))
    halves = [list(stream.test_batches(4, shard=(i, 2))) for i in range(2)]
    joined = [np.stack([a["labels"], b["labels"]], 1).ravel() for a, b in zip(*halves, strict=True)]
    np.testing.assert_array_equal(np.concatenate(joined), labels)

    def chosen(count, **options):
        images, labels = stream.test_examples(count, **options)
        return numbers({"images": images, "labels": labels})

    assert chosen(5) == order[:5]
    assert chosen(5, seed=1) == chosen(5, seed=1)
    assert len({tuple(chosen(5, seed=seed)) for seed in range(3)}) == 3
    assert sorted(chosen(TEST, seed=0)) == list(range(TEST))
    with pytest.raises(ValueError, match=r"`count` must be an integer ≥ 1 and ≤ 11, but 12"):
        stream.test_examples(12)


def test_a_part_of_a_split_is_a_set(numbered):
    stream = data.stream("numbered", folder=numbered, size=4, train_split="train[:20]", test_split="train[20:]")
    assert (stream.train_count, stream.test_count) == (20, 30)
    (batch,) = take(stream.train_batches(0, 20), 1)
    (rest,) = stream.test_batches(30)
    assert sorted(numbers(batch) + numbers(rest)) == list(range(COUNT))


def test_damaged_records_are_named(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    good, label = encoded(pixels, "jpeg"), tfds.features.ClassLabel(num_classes=2)
    train = [(good, 0), (good[: len(good) // 2], 0), (good, 0)]
    prepare(tmp_path, "tiny_bad", {"train": train, "validation": [(good, 1), (b"no image", 1)]}, label=label)
    stream = data.stream("tiny_bad", folder=tmp_path, size=8)
    stored = tfds.builder("tiny_bad", data_dir=tmp_path).as_data_source(
        None, decoders={"image": tfds.decode.SkipDecoding()}
    )
    bad = {split: [one["image"] == good for one in stored[split]].index(False) for split in ("train", "validation")}
    named = rf"Record {bad['train']} of split 'train' of 'tiny_bad' \(under .*1\.0\.0\) cannot be decoded \(OSError: .*"
    with pytest.raises(ValueError, match=named + "truncated"):
        take(stream.train_batches(0, 3), 1)
    with pytest.raises(ValueError, match=rf"Record {bad['validation']} of split 'validation'.*cannot identify"):
        list(stream.test_batches(2))
    unlabelled = [(good, 0), (good, -1)]
    prepare(tmp_path, "tiny_hidden", {"train": unlabelled, "test": unlabelled}, label=label)
    with pytest.raises(ValueError, match=r"of 'tiny_hidden'.* has the label -1, none of the 2 classes. Use a split"):
        data.stream("tiny_hidden", folder=tmp_path, size=8).test_examples(2)


def test_unusable_sets_are_refused(tmp_path, numbered):
    with pytest.raises(ValueError, match=r"prepared as array_record.*nothing is prepared under") as caught:
        data.stream("imagenet2012", folder=tmp_path)
    call = f"tfds.builder('imagenet2012', data_dir='{tmp_path}', file_format='array_record').download_and_prepare()"
    assert call in str(caught.value)
    with pytest.raises(ValueError, match=r"`name` must be the name of a TFDS set, but TFDS refuses 'no_such_set'"):
        data.stream("no_such_set", folder=tmp_path)
    for split in ("validation", "nowhere", "train[:0]"):
        with pytest.raises(ValueError, match=rf"`split` must be one with images.*: train, test, but '{split[:5]}"):
            data.stream("numbered", folder=numbered, test_split=split)
    with pytest.raises(ValueError, match=r"`folder` must be an existing folder"):
        data.stream("numbered", folder=tmp_path / "nowhere")
    for wrong in ({"size": 0}, {"worker_count": -1}, {"size": 2.5}):
        with pytest.raises((ValueError, TypeError), match=rf"`{next(iter(wrong))}` must be an integer"):
            data.stream("numbered", folder=numbered, **wrong)
    splits = {"train": examples(0, 2), "test": examples(1, 2)}
    prepare(tmp_path, "tiny_records", splits)
    path = tmp_path / "tiny_records" / "1.0.0" / "dataset_info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fileFormat": "tfrecord"}))
    with pytest.raises(ValueError, match=r"prepared as array_record.*in another format.*pip install"):
        data.stream("tiny_records", folder=tmp_path)


@pytest.mark.parametrize("module", ["grain", "PIL.Image", "tensorflow_datasets"])
def test_a_missing_package_gives_the_line_to_run(numbered, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"needs {module}.*pip install 'deform_jax\[data\]'"):
        data.stream("numbered", folder=numbered)


def test_the_written_photographs_are_jpegs_of_many_sizes_from_separate_parts(photographs, tmp_path):
    from experiments.common import photograph_set

    builder = tfds.builder("photographs", data_dir=photographs)
    assert len(builder.info.splits["train"].filenames) == 2
    train = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})
    files = [Image.open(io.BytesIO(one["image"])) for one in train]
    assert {file.format for file in files} == {"JPEG"}
    assert len({file.size for file in files}) > 30
    assert {file.mode for file in files} == {"L", "RGB"}
    assert sorted(one["label"] for one in train) == sorted(4 * list(range(10)))
    for split, (start, end) in photograph_set.REGIONS.items():
        for pixels, label in photograph_set.crops(split, 10, 0):
            part = photograph_set.photograph(photograph_set.CLASSES[label])
            part = part[:, round(start * part.shape[1]) : round(end * part.shape[1])]
            windows = np.lib.stride_tricks.sliding_window_view(part, pixels.shape[:2], axis=(0, 1))[..., 0, 0]
            first = pixels[0, 0]
            places = np.argwhere((windows == first).reshape(*windows.shape[:2], -1).all(-1))
            height, width = pixels.shape[:2]
            assert any((part[y : y + height, x : x + width] == pixels).all() for y, x in places)
    with pytest.raises(SystemExit, match=r"`folder` must hold no set named photographs"):
        photograph_set.main([str(photographs)])
    with pytest.raises(SystemExit, match=r"`images` must be an integer ≥ 10"):
        photograph_set.main([str(tmp_path), "--images", "9"])
