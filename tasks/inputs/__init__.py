"""What is loaded once a process: real images, their features, the models, a published run."""
