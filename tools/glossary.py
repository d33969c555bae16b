"""Print docs/glossary.md, made from the words that the report page explains."""

from __future__ import annotations

import sys

from winticket.report.glossary import glossary_page

if __name__ == "__main__":
    sys.stdout.write(glossary_page())
