"""Randomness is a function of seed and place: who loads the images must not matter."""
import numpy as np, torch
from hqgnet_nb.core import rng

def test_loading_processes_give_the_same_batches():
    from hqgnet_nb.data import unpaired_dls
    imgs = [rng(0, 'img', k).random((40, 40, 3)).astype(np.float32) for k in range(5)]
    batches = [[b for b in unpaired_dls(imgs, imgs[::-1], size=32, bs=2, seed=3, num_workers=w).train] for w in (0, 1)]
    assert len(batches[0]) == len(batches[1]) == 2
    for a, b in zip(*batches):
        for s, t in zip(a, b): assert torch.equal(s.as_subclass(torch.Tensor), t.as_subclass(torch.Tensor))
