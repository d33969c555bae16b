"""Tickets on MNIST-1D, against random masks at a twelfth of the weights.

The network, optimiser and length of Greydanus & Kobak ("Scaling down deep learning with MNIST-1D", the lottery-ticket
notebook): 40-500-500-10, Adam at 2e-2, batches of 100, 1500 steps, every layer pruned to the same density, rewound to
the initial weights. They prune a hundredth of the network at a time, biases too, which are not eligible here, and keep
no validation set. Expected: ticket and re-init are alike (the mask itself carries locality) and six points above the
random mask near a density of .08; all three rise above the dense network, which overfits. So the verdict is a winning
structure rather than a winning ticket. `fine` prunes a fifth at a time, `quick` is for a first look.
"""

from __future__ import annotations

from winticket import Experiment

experiment = Experiment.of("mnist1d")
fine = experiment.but(levels=12, rate=0.2, replicates=5)
quick = experiment.but(levels=3, rate=0.57, replicates=5)
