"""Does the lottery ticket hypothesis hold on scikit-learn's handwritten digits? Takes some minutes on two cores.

LeNet-300-100 by the protocol of Frankle & Carbin 2019 (Figure 2): Adam at 1.2e-3, batches of 60, Glorot normal. Each
level prunes a fifth of the weights, and half that share of the output layer. Training is cut to 800 steps with an
annealed learning rate. There are 30 replicates and 16 levels. `winticket find digits` runs this experiment.
"""

from __future__ import annotations

from winticket import Experiment

experiment = Experiment.of("digits")
