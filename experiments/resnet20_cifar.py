"""ResNet-20 on CIFAR-10, by OpenLTH's recipe: is there a ticket at step 0, and is there one a little later?

SGD at .1 with momentum .9 and weight decay 1e-4, batches of 128, mirrored and shifted images, Kaiming normal. The
learning rate falls to a tenth after epochs 80 and 120 of 160. Each level prunes a fifth of all weights, ranked over the
whole network. An epoch has 352 steps, since 5 000 of the 50 000 images are for validation (OpenLTH: 391 steps).
BatchNorm's scales start at 1 (OpenLTH: uniform in [0, 1]), and every replicate has a separate mask search.

`experiment` rewinds to step 0. This is the classic negative control: the literature finds no ticket there at this
learning rate (about 2.5 points under the dense network). `rewound` rewinds to step 1 000: sparse ResNet-20s are
reported to be stable to the noise of SGD from about step 500 (Frankle et al. 2020), and tickets to match from there.
Both need a GPU in full.

`short` is for two cores: 8 filters in the first layer, 1 600 steps with an annealed learning rate, rewound to step 100,
three levels of a half, three replicates. `--plan` forecasts its time. From the literature at full size we expect an
ordering at a density of .125: ticket over re-init and random mask. Three replicates are too few for a verdict. `short`
has not been run to its end here.

    winticket run experiments/resnet20_cifar.py --variant short --plan

CIFAR-10 is loaded from the Hub; `WINTICKET_CIFAR10` may name a local folder of its parquet files instead.
"""

from __future__ import annotations

import os

from winticket import Experiment

DATA = os.environ.get("WINTICKET_CIFAR10", "cifar10")

experiment = Experiment.of(
    DATA,
    model="resnet-20",
    init="kaiming-normal",
    optimizer="sgd",
    lr=0.1,
    momentum=0.9,
    weight_decay=1e-4,
    batch=128,
    steps=56_320,
    schedule="step",
    milestones=(0.5, 0.75),
    evaluate_every=352,
    flip=True,
    crop=4,
    allocate="global_top",
    levels=12,
    rate=0.2,
    replicates=5,
    validation=5_000,
)
rewound = experiment.but(rewind="to_step", rewind_step=1_000)
short = rewound.but(
    model="resnet-20-8",
    steps=1_600,
    schedule="cosine",
    evaluate_every=200,
    rewind_step=100,
    levels=3,
    rate=0.5,
    replicates=3,
    gate=False,
)
