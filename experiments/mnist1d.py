"""Tickets on MNIST-1D, against random masks at a twelfth of the weights.

Network, optimiser and length are those of Greydanus & Kobak ("Scaling down deep learning with MNIST-1D", the
lottery-ticket notebook): 40-500-500-10, Adam at 2e-2, batches of 100, 1500 steps. Every layer is pruned to the same
density, and tickets rewind to the initial weights. The authors prune a hundredth of the network at a time, including
biases, which are not eligible here, and they have no validation set.

We expect ticket and re-init to be alike, since the mask itself encodes locality, and both to be six points above the
random mask near a density of .08. All three should rise above the dense network, which overfits. So we expect the
verdict of a winning structure rather than a winning ticket. `fine` prunes a fifth at a time; `quick` is for a first
look.
"""

from __future__ import annotations

from winticket import Experiment

experiment = Experiment.of("mnist1d")
fine = experiment.but(levels=12, rate=0.2, replicates=5)
quick = experiment.but(levels=3, rate=0.57, replicates=5)
