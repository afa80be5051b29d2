"""Sphinx: `make docs`, or `sphinx-build -W docs docs/_build`."""

from dicom_node import __version__

project = "dicom-node"
author = "the dicom-node authors"
copyright = author
release = version = __version__

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "dicom-node"
html_show_sphinx = False

# code hosts draw the state diagrams; here they stay text, for want of a network
suppress_warnings = ["misc.highlighting_failure"]
