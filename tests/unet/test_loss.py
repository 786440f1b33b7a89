"""The weighted loss against torch's own, and what has no gradient."""

import torch
from torch.nn import functional

from segment_slide.unet.loss import crop_to, weighted_loss
from segment_slide.unet.sample import IGNORE


def test_the_loss_is_the_weighted_sum_over_the_inner_pixels_divided_by_their_number():
    torch.manual_seed(0)
    logits, classes = torch.randn(2, 3, 12, 12), torch.randint(0, 3, (2, 8, 8), dtype=torch.uint8)
    classes[:, 0] = IGNORE
    weights = torch.rand(2, 8, 8) * (classes != IGNORE)
    each = functional.cross_entropy(logits[..., 2:-2, 2:-2], classes.long(), ignore_index=IGNORE, reduction="none")
    torch.testing.assert_close(weighted_loss(logits, classes, weights), (each * weights).sum((1, 2)) / 64)


def test_equal_weights_give_the_plain_cross_entropy():
    torch.manual_seed(0)
    logits, classes = torch.randn(1, 2, 6, 6, 6), torch.randint(0, 2, (1, 6, 6, 6), dtype=torch.uint8)
    expected = functional.cross_entropy(logits, classes.long())
    torch.testing.assert_close(weighted_loss(logits, classes, torch.ones(1, 6, 6, 6))[0], expected)


def test_ignored_pixels_have_no_gradient_and_others_have():
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 8, 8, requires_grad=True)
    classes = torch.randint(0, 3, (1, 8, 8), dtype=torch.uint8)
    classes[0, :4] = IGNORE
    weighted_loss(logits, classes, torch.ones(1, 8, 8)).sum().backward()
    assert torch.all(logits.grad[0, :, :4] == 0)
    assert torch.all(logits.grad[0, :, 4:] != 0)


def test_a_pixel_of_ten_times_the_weight_has_ten_times_the_gradient():
    logits = torch.zeros(1, 2, 2, 2, requires_grad=True)
    weights = torch.tensor([[[1.0, 10.0], [1.0, 1.0]]])
    weighted_loss(logits, torch.zeros(1, 2, 2, dtype=torch.uint8), weights).sum().backward()
    torch.testing.assert_close(logits.grad[0, :, 0, 1], 10 * logits.grad[0, :, 0, 0])


def test_a_tile_that_nobody_annotated_changes_nothing():
    logits = torch.randn(1, 2, 6, 6, requires_grad=True)
    loss = weighted_loss(logits, torch.full((1, 6, 6), IGNORE, dtype=torch.uint8), torch.zeros(1, 6, 6)).sum()
    loss.backward()
    assert loss == 0
    assert torch.all(logits.grad == 0)


def test_the_crop_is_symmetric():
    logits = torch.arange(12.0).reshape(1, 1, 1, 12)
    assert crop_to(logits, torch.zeros(1, 1, 8)).flatten().tolist() == [2, 3, 4, 5, 6, 7, 8, 9]
