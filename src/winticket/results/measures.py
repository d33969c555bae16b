"""Numbers of the result document by what they measure: each alias is a JSON type with its unit."""

from __future__ import annotations

Fraction = float
"""fraction: an accuracy or a share, from 0 to 1"""
Difference = float
"""fraction: a difference of two accuracies, from -1 to 1"""
Points = float
"""percentage points"""
Probability = float
"""probability"""
Step = int
"""optimiser steps"""
MeanStep = float
"""optimiser steps"""
Seconds = float
"""seconds"""
Operations = float
"""floating-point operations"""
Scalar = str | int | float | bool | None
"""a plain JSON value"""
