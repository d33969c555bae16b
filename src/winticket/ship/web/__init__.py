"""A trained network as a web page that loads nothing: one draws or chooses an input, and its networks answer.

The page's own files lie beside: `engine.js` reads compact files and computes, `drawing.js` makes pixels of a drawing as
the data were made, `page.js` shows answers and measures times.
"""

from __future__ import annotations

from winticket.ship.web.page import network_of, to_web

__all__ = ["network_of", "to_web"]
