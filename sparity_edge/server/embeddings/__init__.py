"""OpenAI's Embeddings: `routes` for an application, over `pooling`, which reads texts by chunks."""
