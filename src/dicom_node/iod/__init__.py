"""The objects: SOP Instances read into plain values, and results written as SOP Instances."""
