"""Tickets on MNIST-1D, against random masks at a twelfth of the weights.

The network, optimiser and length of Greydanus & Kobak ("Scaling down deep learning", 2020, the lottery-ticket case
study): 40-500-500-10, Adam at 2e-2, batches of 100, 1500 steps, pruned globally. They prune biases too, which are not
eligible here, and rewind to the initial weights in the same way. `quick` is for a first look.
"""

from winticket import Experiment

experiment = Experiment.of("mnist1d", replicates=10)
quick = experiment.but(levels=6, rate=0.35, replicates=5, steps=600)
