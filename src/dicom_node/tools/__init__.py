"""The tools: arrays in, results out; DICOM and the network are other rooms' business."""
