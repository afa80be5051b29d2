"""The associations: the only DICOM sockets of the node, as SCP (scp) and as SCU (scu)."""
