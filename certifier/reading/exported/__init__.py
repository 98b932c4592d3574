"""`torch.export` programs (`.pt2`), read as JSON and raw weights."""
