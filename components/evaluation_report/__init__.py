"""One HTML page by which a person can judge a model."""
