"""The iterative procedure inside other people's trainers. Each module needs its own package, and is imported by itself.

`winticket.integrations.lightning` (`pip install 'winticket[lightning]'`) and `winticket.integrations.transformers`
(`pip install 'winticket[transformers]'`).
"""
