"""The loss profile: what an example's loss was when it was last seen, itself or by its synthetic ones."""

from __future__ import annotations

import numpy as np
import torch

from sage_kit.training.profile import Profile

CPU = torch.device("cpu")


def test_profile_keeps_old_losses_until_an_example_is_seen_again() -> None:
    profile = Profile(4, 2, CPU)
    profile.record(torch.tensor([0, 2]), torch.tensor([1.0, 3.0]), torch.zeros(2, 2))
    assert profile.mean_loss() == 2.0
    profile.start_pass()
    assert np.isnan(profile.mean_loss())
    profile.record(torch.tensor([2]), torch.tensor([5.0]), torch.zeros(1, 2))
    assert profile.mean_loss() == 5.0
    np.testing.assert_array_equal(profile.losses.numpy(), [1.0, np.nan, 5.0, np.nan])


def test_replaced_examples_take_the_mean_loss_of_their_synthetic_ones() -> None:
    profile, children = Profile(4, 1, CPU), Profile(5, 1, CPU)
    profile.losses[:] = torch.tensor([10.0, 20.0, 30.0, 40.0])
    profile.start_pass()
    profile.record(torch.tensor([3]), torch.tensor([7.0]), torch.tensor([[0.7]]))
    # the last child was dropped by a filter and never seen
    children.record(
        torch.tensor([0, 1, 2, 3]), torch.tensor([1.0, 3.0, 5.0, 9.0]), torch.tensor([[1.0], [3.0], [5.0], [9.0]])
    )
    profile.attribute(np.array([0, 0, 1, 3, 2]), children)
    np.testing.assert_allclose(profile.losses.numpy(), [2.0, 5.0, 30.0, 7.0])
    np.testing.assert_allclose(profile.logits[:, 0].numpy(), [2.0, 5.0, 0.0, 0.7])
