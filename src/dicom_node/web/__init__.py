"""DICOM over HTTP (PS3.18)."""
