"""The loss of the paper: softmax and cross-entropy, weighted pixel by pixel (Ronneberger 2015, Sec. 3, Eq. 1)."""

from torch import Tensor
from torch.nn import functional

from segment_slide.unet.sample import IGNORE


def crop_to(logits: Tensor, classes: Tensor) -> Tensor:
    """Crop scores to the tile: the output is wider than the tile by the same amount on both sides.

    Parameters
    ----------
    logits : Tensor, (n, n_classes, *network output)
    classes : Tensor, (n, *tile)
    """
    for axis in range(1, classes.ndim):
        surplus = logits.shape[axis + 1] - classes.shape[axis]
        logits = logits.narrow(axis + 1, surplus // 2, classes.shape[axis])
    return logits


def weighted_loss(logits: Tensor, classes: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy of each tile: the sum of Eq. 1 over the tile's pixels, divided by their number.

    The division makes one learning rate suit every tile size. It counts all pixels of the tile, annotated or not. So a
    tile with a single annotated pixel changes the weights as little as that pixel would in a fully annotated tile.

    Parameters
    ----------
    logits : Tensor of float32, (n, n_classes, *network output)
        Scores.
    classes : Tensor of uint8, (n, *tile)
        Classes; pixels of class 255 do not count.
    weights : Tensor of float32, (n, *tile)
        Weight of each pixel (Eq. 2).

    Returns
    -------
    Tensor of float32, (n,)
        Nats per pixel; 0 for a tile without annotated pixels.

    Examples
    --------
    >>> import torch
    >>> logits, classes = torch.zeros(1, 2, 1, 4), torch.tensor([[[0, 1, 1, 255]]], dtype=torch.uint8)
    >>> weighted_loss(logits, classes, torch.tensor([[[1.0, 1.0, 2.0, 0.0]]])) / torch.log(torch.tensor(2.0))
    tensor([1.])
    """
    losses = functional.cross_entropy(crop_to(logits, classes), classes.long(), ignore_index=IGNORE, reduction="none")
    return (weights * losses).flatten(1).mean(1)
