"""ATen operators as ONNX nodes: one function per operator, grouped by family, registered in one table."""
