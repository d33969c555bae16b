"""Does the lottery ticket hypothesis hold on scikit-learn's handwritten digits? Some minutes on two cores.

LeNet-300-100 in the protocol of Frankle & Carbin 2019 (Figure 2: Adam at 1.2e-3, batches of 60, Glorot normal, a fifth
of the weights pruned per level, the output layer at half that rate), cut to 800 steps with the rate annealed; 30
replicates, 16 levels. This is what `winticket find digits` runs.
"""

from __future__ import annotations

from winticket import Experiment

experiment = Experiment.of("digits")
