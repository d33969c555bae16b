"""Iterative pruning inside the trainers of other libraries. Import each module by itself; each needs its own package.

`winticket.integrations.lightning` (`pip install 'winticket[lightning]'`) and `winticket.integrations.transformers`
(`pip install 'winticket[transformers]'`).
"""
