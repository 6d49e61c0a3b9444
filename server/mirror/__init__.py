"""A study's record in the tools that people have, MLflow and TensorBoard: read from the record, never by the study."""
