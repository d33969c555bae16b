"""LeNet-300-100 on MNIST, by the protocol of Frankle & Carbin 2019 (section 2, Figures 2 to 4).

Adam at 1.2e-3, batches of 60, Glorot normal, 50 000 steps evaluated every 100, with 55 000 training and 5 000
validation images. Each level prunes a fifth of the weights, and a tenth of the output layer. In full this takes a day
on two cores.

`short` is cut to 2 400 steps with an annealed learning rate, and takes minutes. `pace` is `short` with ten replicates
down to a density of .11. It asks how soon tickets and re-initialised tickets reach the final accuracy of the dense
network (Figure 4 of the paper). We expect tickets to be sooner than the dense network, and re-initialised tickets
later. It takes some seven minutes on two free cores.

    winticket run experiments/lenet_mnist.py --variant short
    winticket run experiments/lenet_mnist.py --variant pace --out runs/mnist-pace
    python benchmarks/pace_table.py runs/mnist-pace

MNIST is loaded from the Hub; `WINTICKET_MNIST` may name a local folder of its parquet files instead.
"""

from __future__ import annotations

import os

from winticket import Experiment

DATA = os.environ.get("WINTICKET_MNIST", "mnist")

experiment = Experiment.of(
    DATA,
    model="lenet-300-100",
    init="glorot-normal",
    optimizer="adam",
    lr=1.2e-3,
    batch=60,
    steps=50_000,
    evaluate_every=100,
    levels=24,
    rate=0.2,
    output_rate=0.1,
    replicates=5,
    validation=5_000,
)
short = experiment.but(steps=2_400, schedule="cosine", evaluate_every=240, levels=12)
pace = short.but(levels=10, replicates=10, controls=("reinit",), gate=False)
