"""LS's ImageNet form, as its user would run it, on a small streamed set."""

import pytest
from figure_results import read

from deform_jax import training
from experiments.learned_stability import fig6_filter_smoothness


def test_the_imagenet_form_trains_on_a_stream_and_goes_on_after_a_kill(photographs, tmp_path, monkeypatch):
    """At the smallest size its five halvings allow; killed in mid-epoch; to the same bits."""
    arguments = ["--scale", "imagenet", "--dataset", "stream:photographs", "--data-folder", str(photographs)]
    arguments += ["--image-size", "32", "--width", "0.016", "--downsamplings", "max", "--seeds", "1", "--epochs", "1"]
    arguments += ["--batch-size", "8", "--warmup-epochs", "0", "--checkpoint-steps", "2", "--data-axis", "1"]
    ends = []
    for name in ("whole", "killed"):
        folders = ["--runs", str(tmp_path / name), "--results", str(tmp_path / f"{name}_results")]
        if name == "killed":
            saved = training.loop._save

            def save_and_die(*parts, saved=saved):
                saved(*parts)
                raise KeyboardInterrupt

            monkeypatch.setattr(training.loop, "_save", save_and_die)
            with pytest.raises(SystemExit, match="130"):  # as after Ctrl-C
                fig6_filter_smoothness.main([*arguments, *folders])
            monkeypatch.undo()
        fig6_filter_smoothness.main([*arguments, *folders])
        table = read(tmp_path / f"{name}_results")
        assert len({row["layer"] for row in table}) == 13
        ends.append([row["total_variation"] for row in table])
    assert ends[0] == ends[1]
