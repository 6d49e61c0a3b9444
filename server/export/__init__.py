"""The release of a model: a folder for transformers, sentence-transformers and ONNX, its card, its governance."""
