"""What was served and what came back, against what the champion learnt from."""
