"""The bytes: every SOP Instance the node holds, one file each, durable before it is spoken of."""
