"""The steps as a pipeline of Kubeflow, compiled, run here or submitted; the only room that imports kfp."""
