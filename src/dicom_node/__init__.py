"""dicom-node: the node between a PACS and its AI models."""

__version__ = "0.1.0"
