"""Who the node says it is (PS3.7 §D.3.3.2).

Both values are also in the file meta of stored objects, so they never change with a release: the
same data set must make the same file for ever.
"""

from __future__ import annotations

from dicom_node.domain.identifiers import derived_uid

IMPLEMENTATION_CLASS_UID = derived_uid("dicom-node", "implementation class")
IMPLEMENTATION_VERSION_NAME = "DICOM-NODE"
