"""What training is shown: images, crops of them, and the prompts on these."""
